"""How q is moved: the adaptive weight by hand, and the path of the search by dose."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from invmm_eval.errors import InvMMError
from invmm_eval.noise.gaussian import Gaussian, diagonal, isotropic
from invmm_eval.recipe import Recipe, by_dose, fast
from invmm_eval.search.optimizers import AdaptiveWeight, Dose, OneShot
from tests.helpers.exact import QUICK, SHAPE


def trace(recipe: Recipe, events: list[float | None]) -> list[float]:
    """lambda after each event: a step without a check (None), or a check's average loss."""
    weight = AdaptiveWeight(recipe)
    values = []
    for average in events:
        if average is None:
            weight.grow()
        else:
            weight.after_check(average)
        values.append(weight.value)
    return values


def test_the_weight_by_hand() -> None:
    recipe = Recipe(first_weight=2.0, delta=0.5, xi=0.25)
    assert AdaptiveWeight(recipe).value == 2.0
    events_and_values: list[tuple[float | None, float]] = [
        (None, 2.5),
        (None, 3.0),
        (8.0, 3.5),  # the first check grows, whatever the loss
        (None, 4.0),
        (7.0, 4.5),  # fell by 1
        (6.75, 5.0),  # fell by just xi, not by less
        (6.625, 2.5),  # fell by less
        (None, 3.0),
        (6.625, 1.5),  # stood still
        (9.0, 0.75),  # rose
        (8.0, 1.25),  # fell by 1 since the check before, though not below the best
        (7.875, 0.625),
    ]
    events, values = zip(*events_and_values, strict=True)
    assert trace(recipe, list(events)) == list(values)


class Scaled:
    """A noise without a mean."""

    def __init__(self) -> None:
        self.logvar = torch.zeros(SHAPE, requires_grad=True)

    def parameters(self) -> Mapping[str, Tensor]:
        return {"logvar": self.logvar}


def start() -> Tensor:
    return torch.zeros(SHAPE)


def gaussian() -> Gaussian:
    return Gaussian(torch.zeros(SHAPE), torch.zeros(SHAPE))


def dose(nats: float, noise: Any, steps: int = 4) -> Dose:
    return Dose(noise.parameters(), {}, replace(by_dose(QUICK), first_dose=nats, check_every=steps), start)


def step(optimizer: Dose, mu: Tensor, gradient: Tensor) -> None:
    mu.grad = None
    torch.autograd.backward((mu * gradient).sum())
    type(optimizer).step([optimizer], checked=False)


def test_the_mean_moves_against_the_gradient_as_far_as_the_dose_allows() -> None:
    noise, gradient = gaussian(), torch.randn(SHAPE)
    moved = dose(8.0, noise)
    step(moved, noise.mu, gradient)
    torch.testing.assert_close(noise.mu.detach(), -4 * gradient / gradient.norm())
    assert moved.ray.nats == 8


def test_the_dose_doubles_after_a_check() -> None:
    noise = gaussian()
    moved = dose(8.0, noise)
    moved.after_check(average_loss=1.0)
    step(moved, noise.mu, torch.ones(SHAPE))
    assert noise.mu.square().sum().item() / 2 == pytest.approx(16)


def test_the_average_of_gradients_decays_over_a_dose() -> None:
    noise = gaussian()
    moved = dose(0.5, noise, steps=4)
    first, second = torch.zeros(SHAPE), torch.zeros(SHAPE)
    first[0, 0, 0] = second[0, 0, 1] = -1
    step(moved, noise.mu, first)
    step(moved, noise.mu, second)
    assert noise.mu[0, 0, 0].item() == pytest.approx(0.75 / math.hypot(0.75, 1))
    assert noise.mu[0, 0, 1].item() == pytest.approx(1 / math.hypot(0.75, 1))


def test_without_a_gradient_the_mean_stays() -> None:
    noise = gaussian()
    step(dose(2.0, noise), noise.mu, torch.zeros(SHAPE))
    assert not noise.mu.any()


@pytest.mark.parametrize("family", [diagonal(), isotropic()])
def test_every_family_with_a_mean_has_the_kl_of_the_dose(family: Any) -> None:
    noise = family(torch.zeros(SHAPE))
    step(dose(3.0, noise), noise.mu, torch.ones(SHAPE))
    assert noise.kl().item() * noise.mu.numel() == pytest.approx(3.0, rel=1e-4)
    assert [name for name, tensor in noise.parameters().items() if tensor.requires_grad] == ["mu"]


def test_a_family_without_a_mean_is_an_error() -> None:
    with pytest.raises(InvMMError, match="has no mu"):
        dose(1.0, Scaled())


# One shot


def one_shot(
    noise: Gaussian, towards: Tensor, condition: Mapping[str, Tensor] | None = None, **changes: Any
) -> OneShot:
    recipe = fast(QUICK).changed(**changes)
    return OneShot(noise.parameters(), condition or {}, recipe, lambda: towards)


def axis(index: int) -> Tensor:
    vector = torch.zeros(SHAPE)
    vector.view(-1)[index] = 1
    return vector


def test_every_dose_lies_towards_the_image_and_needs_no_gradient() -> None:
    noise, towards = gaussian(), torch.randn(SHAPE)
    moved = one_shot(noise, towards, first_dose=2.0, growth=4.0)
    for nats in (2.0, 8.0, 32.0):
        assert not moved.uses_gradients
        OneShot.step([moved], checked=True)
        torch.testing.assert_close(noise.mu.detach(), math.sqrt(2 * nats) * towards / towards.norm())
        moved.after_check(math.nan)


def test_a_searched_prompt_takes_one_step_and_does_not_turn_the_direction() -> None:
    noise, logits = gaussian(), torch.zeros(3, requires_grad=True)
    moved = one_shot(noise, 5 * axis(0), {"logits": logits}, first_dose=8.0, growth=4.0, learning_rate=0.5)
    assert moved.uses_gradients
    torch.autograd.backward((logits * torch.tensor([2.0, -0.1, 0.0])).sum() + (noise.mu * axis(1)).sum())
    for nats in (8.0, 32.0):
        OneShot.step([moved], checked=True)
        moved.after_check(math.nan)
        torch.testing.assert_close(logits.detach(), torch.tensor([-0.5, 0.5, 0.0]))
        torch.testing.assert_close(noise.mu.detach(), math.sqrt(2 * nats) * axis(0))
        assert not moved.uses_gradients
