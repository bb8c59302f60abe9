"""The gradient of a step: exact, at the inputs alone, and not lost in half precision."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from invmm_eval.models.condition import Context
from invmm_eval.similarity.pixel_cosine import PixelCosine
from tests.helpers.exact import QUICK, SHAPE, Mixture, pictures, run

MEMORIZED = pictures(5)
UNSEEN = pictures(1, seed=99)


def test_the_known_minimum_is_reached() -> None:
    """For one Gaussian as data the denoiser is linear, x0_hat = a_t x_t, and the loss quadratic in mu and v.

    With a fixed lambda its minimum over mu and v is, per dimension,
    mu = -B x_0 / (A + lambda / 2) and v = lambda / (2 A + lambda),
    where A = E[a^2 sigma^2] and B = E[(a alpha - 1) a sigma] over the training times.
    """
    spread, fixed = 0.5, 0.05
    model = Mixture(torch.full((1, *SHAPE), 127.5), spread=spread)
    alpha, sigma = model.schedule(torch.arange(1000))
    gain = alpha * spread**2 / (alpha**2 * spread**2 + sigma**2)
    a = (gain * sigma).square().mean()
    b = ((gain * alpha - 1) * gain * sigma).mean()
    x_0 = UNSEEN[0].float() / 127.5 - 1
    mu = -b * x_0 / (a + fixed / 2)
    v = (fixed / (2 * a + fixed)).expand(SHAPE)
    least = torch.distributions.kl_divergence(
        torch.distributions.Normal(mu, v.sqrt()), torch.distributions.Normal(torch.zeros(SHAPE), torch.ones(SHAPE))
    ).mean()

    class Never(PixelCosine):
        threshold = 2.0

    recipe = replace(QUICK, max_steps=600, draws=64, check_every=600, check_images=1, learning_rate=0.02)
    recipe = replace(recipe, first_weight=fixed, delta=0.0)
    (found,) = run(model, UNSEEN, Never(device=torch.device("cpu")), recipe=recipe).values()
    assert found.kl == pytest.approx(least.item(), rel=0.05)
    torch.testing.assert_close(found.noise["mu"], mu, atol=0.1, rtol=0)
    torch.testing.assert_close(found.noise["logvar"].exp(), v, atol=0.1, rtol=0)


def test_gradients_reach_the_inputs_alone(cosine: PixelCosine) -> None:
    class Weighted(Mixture):
        weight = torch.ones((), requires_grad=True)

        def predict_x0(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
            return super().predict_x0(x_t, t, context) * self.weight

    model = Weighted(MEMORIZED)
    run(model, MEMORIZED[:1], cosine, recipe=replace(QUICK, max_steps=10))
    assert model.weight.grad is None


class HalfInside(Mixture):
    """A mixture whose network, and so the gradient on its way back, is in half precision at a scale of its own."""

    def predict_x0(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        return (super().predict_x0(x_t, t, context) * 4096).half().float() / 4096


def test_half_precision_does_not_lose_the_gradient(cosine: PixelCosine) -> None:
    """Of the mean over 3 x 128 x 128 dimensions a single one's gradient is below the smallest number of float16."""
    images = pictures(2, (3, 128, 128))
    recipe = replace(QUICK, max_steps=1, check_every=1, check_images=1, sampler_steps=1)
    whole, half = (
        run(kind(images, spread=1.0), images[:1], cosine, recipe=recipe)["0"].noise["mu"]
        for kind in (Mixture, HalfInside)
    )
    assert whole.all()
    assert (whole.sign() == half.sign()).float().mean() > 0.99
