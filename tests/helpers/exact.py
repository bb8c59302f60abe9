"""Models whose best denoiser is known in closed form, so that the truth about what they replicate is known too."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

import torch
from torch import Generator, Tensor

from invmm_eval.models.condition import Condition, Context, Unconditional
from invmm_eval.models.schedule import RectifiedFlow, Schedule, VariancePreserving, broadcast
from invmm_eval.noise.gaussian import diagonal
from invmm_eval.plugins.hooks import BackboneEntry, hookimpl
from invmm_eval.plugins.host import host
from invmm_eval.recipe import Recipe
from invmm_eval.search.engine import invert
from invmm_eval.search.result import Result
from invmm_eval.search.target import Target
from invmm_eval.similarity.pixel_cosine import PixelCosine

SHAPE = (1, 4, 4)
QUICK = Recipe(name="quick", max_steps=200, draws=16, check_every=10, delta=1e-3, sampler_steps=20)


def linear_schedule(times: int = 1000) -> VariancePreserving:
    return VariancePreserving((1 - torch.linspace(1e-4, 0.02, times, dtype=torch.float64)).cumprod(dim=0))


def flow_schedule() -> RectifiedFlow:
    return RectifiedFlow(torch.linspace(0.001, 1, 1000))


def pictures(count: int, shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> Tensor:
    """Random black-and-white pictures, uint8 ``(count, C, H, W)``: far apart from each other."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 2, (count, *shape), generator=generator, dtype=torch.uint8) * 255


def targets(images: Tensor) -> list[Target]:
    return [Target(image, name=str(index)) for index, image in enumerate(images)]


def run(backbone: Any, images: Tensor, similarity: PixelCosine, **options: Any) -> dict[str, Result]:
    """Results of a quick search of each image by its name, its position."""
    results = invert(backbone, targets(images), similarity, diagonal(), **{"recipe": QUICK, **options})
    return {result.name: result for result in results}


class Mixture:
    """The exact denoiser of Gaussians of one spread around pictures; spread 0 has memorized just these pictures.

    For data ``sum_k w_k N(p_k, s^2 I)`` the posterior mean is ``sum_k r_k m_k`` with responsibilities
    ``r_k ~ w_k N(x_t; alpha p_k, (alpha^2 s^2 + sigma^2) I)`` and
    ``m_k = p_k + alpha s^2 / (alpha^2 s^2 + sigma^2) * (x_t - alpha p_k)``.
    """

    recipe = QUICK
    settings: Mapping[str, str | int | float | None] = {"name": "mixture"}
    clip: float | None = None
    device = torch.device("cpu")

    def __init__(
        self, images: Tensor, weights: Tensor | None = None, spread: float = 0.0, schedule: Schedule | None = None
    ) -> None:
        self.image_shape: tuple[int, int, int] = (images.shape[1], images.shape[2], images.shape[3])
        self.schedule: Schedule = schedule or linear_schedule()
        self.points = images.float() / 127.5 - 1
        self.log_weights = torch.zeros(len(images)) if weights is None else weights.log()
        self.spread = spread
        self.rows_seen: list[int] = []

    @property
    def identity(self) -> str:
        return sha256(self.points.numpy().tobytes()).hexdigest()

    def encode(self, images: Tensor) -> Tensor:
        return images * 2 - 1

    def decode(self, x_0: Tensor) -> Tensor:
        return (x_0 / 2 + 0.5).clamp(0, 1)

    def condition(self, caption: str | None = None) -> Condition:  # noqa: ARG002
        return Unconditional()

    def predict_x0(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:  # noqa: ARG002
        self.rows_seen.append(len(x_t))
        alpha_t, sigma_t = (broadcast(level, x_t) for level in self.schedule(t))
        variance = alpha_t**2 * self.spread**2 + sigma_t**2
        distances = (x_t[:, None] - alpha_t[:, None] * self.points).flatten(2).square().sum(dim=2)
        responsibilities = (self.log_weights - distances / (2 * variance.flatten(1))).softmax(dim=1)
        means = responsibilities @ self.points.flatten(1)
        gain = (alpha_t * self.spread**2 / variance).flatten(1)
        estimate = means + gain * (x_t.flatten(1) - alpha_t.flatten(1) * means)
        return estimate.view_as(x_t)


class Chooser:
    """A condition with one logit for each picture of a :class:`Choosing` model, searched along with the noise.

    Args:
        first: The logits of the prompt that the search starts from.
        null: The logits without a prompt.
    """

    def __init__(self, first: Tensor, null: Tensor) -> None:
        self.logits = first.clone().requires_grad_()
        self._null = null

    def parameters(self) -> Mapping[str, Tensor]:
        return {"logits": self.logits}

    def rsample(self, n: int, generator: Generator) -> Context:
        jitter = 0.1 * torch.randn((n, len(self.logits)), generator=generator)
        return {"logits": self.logits + jitter}

    def null(self, n: int) -> Context:
        return {"logits": self._null.expand(n, -1)}

    def prompt(self) -> str:
        return f"picture {self.logits.argmax().item()}"


class Choosing(Mixture):
    """A mixture whose weights are the condition: what a prompt does to a text-guided model.

    The weights are those with the first prompt of a search; ``null`` are those without a prompt.
    """

    def __init__(
        self, images: Tensor, weights: Tensor | None = None, null: Tensor | None = None, **options: Any
    ) -> None:
        super().__init__(images, weights, **options)
        self._first = self.log_weights
        self._null = torch.zeros(len(images)) if null is None else null.log()

    def condition(self, caption: str | None = None) -> Chooser:  # noqa: ARG002
        return Chooser(self._first, self._null)

    def predict_x0(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        self.log_weights = context["logits"].log_softmax(dim=1)
        return super().predict_x0(x_t, t, {})


@contextmanager
def serving(make: Callable[..., Mixture]) -> Iterator[None]:
    """A host whose backbone ``exact`` is what a function makes, whatever it is asked to load."""

    class Plugin:
        @hookimpl
        def register_backbones(self) -> Mapping[str, BackboneEntry]:
            return {"exact": BackboneEntry(make, ("ExactPipeline",))}

    host.cache_clear()
    host().register(Plugin())
    try:
        yield
    finally:
        host.cache_clear()
