# ruff: noqa: ARG002
"""Each promise that a pipeline may break is named."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from invmm_eval.errors import InvMMError
from invmm_eval.models.condition import Condition, Context, SoftPrompt, Unconditional
from invmm_eval.models.generic.proof import prove
from invmm_eval.models.schedule import RectifiedFlow
from invmm_eval.recipe import DDPM


class Honest:
    """A flow towards the nearest of two images, in pixels."""

    device = torch.device("cpu")
    image_shape = (3, 4, 4)
    schedule = RectifiedFlow(torch.linspace(0.01, 1, 100))
    recipe = DDPM
    settings: Mapping[str, Any] = MappingProxyType({})
    clip = None

    def encode(self, images: Tensor) -> Tensor:
        return images * 2 - 1

    def decode(self, x_0: Tensor) -> Tensor:
        return x_0 / 2 + 0.5

    def condition(self, caption: str | None = None) -> Condition:
        return Unconditional()

    def predict_x0(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        return torch.tanh(x_t) * (1 - t[:, None, None, None])


class Darker(Honest):
    def decode(self, x_0: Tensor) -> Tensor:
        return x_0 / 4


class Mixed(Honest):
    def predict_x0(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        return super().predict_x0(x_t, t, context) + x_t.mean(dim=0)


class Timeless(Honest):
    def predict_x0(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        return torch.tanh(x_t)


class Detached(Honest):
    def predict_x0(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        return super().predict_x0(x_t, t, context).detach()


class Around(Honest):
    """Its network computes without gradients, and x_t is added to what it returns."""

    def predict_x0(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        return x_t + super().predict_x0(x_t, t, context).detach()


class Whole(nn.Parameter):
    """Weights of another kind, as quantised ones are."""


class Layer(nn.Module):
    def __init__(self, passes: bool) -> None:
        super().__init__()
        self.weight = Whole(torch.ones(()), requires_grad=False)
        self.passes = passes

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x if self.passes else x.detach())


class Underivable(Honest):
    """As compiled layers without a backward pass are."""

    def predict_x0(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        if x_t.requires_grad:
            raise NotImplementedError("no backward pass")
        return super().predict_x0(x_t, t, context)


class Searched(Honest):
    """Its prompt is searched, and reaches the network if no gradient stops."""

    def __init__(self, *, stops: bool = False) -> None:
        self.stops = stops

    def condition(self, caption: str | None = None) -> Condition:
        return SoftPrompt((1, 2), lambda weights: {"w": weights[:, 0, :1]}, {}, str, device=self.device)

    def predict_x0(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        shift = context["w"].detach() if self.stops else context["w"]
        return super().predict_x0(x_t + shift[:, :, None, None], t, context)


class DetachedSearched(Detached, Searched):
    pass


class Quantised(Honest):
    """One of its two layers is told to pass gradients."""

    def __init__(self, passes: bool) -> None:
        self.layers = nn.ModuleList([Layer(True), Layer(passes)])

    def predict_x0(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        first, second = self.layers
        found: Tensor = super().predict_x0(first(x_t) + second(x_t), t, context)
        return found


class Infinite(Honest):
    def predict_x0(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        return x_t / 0


def proved(backbone: Any, level: str = "quick", ours: float = 0.0) -> tuple[str, str | None]:
    return prove(
        backbone,
        "Pipeline",
        level,
        "a",
        lambda images: images,
        lambda *_: (torch.ones(1), torch.full((1,), 1 + ours)),
        getattr(backbone, "layers", []),
    )


def test_an_honest_pipeline_is_proved() -> None:
    for kind in (Honest, Searched, partial(Quantised, passes=True)):
        assert proved(kind()) == ("autoencoder, rows, times, gradient", None)
    assert proved(Honest(), "full") == ("autoencoder, rows, times, gradient, samples", None)


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (Darker, r"this Pipeline: decode\(encode\(x\)\) is not"),
        (Mixed, "a row of a batch is not what the row gives alone"),
        (Timeless, "a row does not depend on its own time"),
        (Infinite, "estimates of x_0 are not finite"),
        (partial(Searched, stops=True), "no usable gradient reaches the searched prompt; take prompt_mode=caption or"),
        (
            DetachedSearched,
            "no gradient reaches x_t; take prompt_mode=caption or prompt_mode=empty with the recipe fast",
        ),
    ],
)
def test_a_broken_promise_is_named(kind: Callable[[], Honest], sentence: str) -> None:
    with pytest.raises(InvMMError, match=sentence):
        proved(kind())


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (Detached, "no gradient reaches x_t"),
        (Around, "the gradient that reaches x_t is not the network's"),
        (Underivable, "its gradient ends in NotImplementedError (no backward pass)"),
        (partial(Quantised, passes=False), "no gradient passes its quantised weights (Whole)"),
    ],
)
def test_without_a_prompt_to_search_a_missing_gradient_is_told_and_not_refused(
    kind: Callable[[], Honest], why: str
) -> None:
    assert proved(kind(), "full") == ("autoencoder, rows, times, samples", why)


def test_other_samples_are_told_by_a_full_proof() -> None:
    with pytest.raises(InvMMError, match="two steps of our sampler"):
        proved(Honest(), "full", ours=0.1)
