"""The network's estimates that detectors compare, for one image or many, at one time."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from invmm_eval.errors import InvMMError
from invmm_eval.models.backbone import Backbone
from invmm_eval.models.condition import Context, join
from invmm_eval.models.schedule import Schedule
from invmm_eval.search.sampling import estimated
from invmm_eval.search.target import Target, generator


@dataclass(frozen=True)
class Options:
    """The options of a detector: the fields of its class."""

    @property
    def settings(self) -> Mapping[str, str | int | float | None]:
        """All options."""
        return asdict(self)


def time_at(schedule: Schedule, share: float) -> Tensor:
    """The sampling time that lies at ``share`` in (0, 1] of the way from clean to noisiest, to one hundredth."""
    times = schedule.grid(100)  # fewer where the model has fewer
    return times[len(times) - 1 - max(1, round((len(times) - 1) * share))]


def contexts(backbone: Backbone, targets: Sequence[Target], n: int, seed: int) -> Context:
    """``n`` contexts of each image's own condition, one image after the other."""
    drawn = [
        backbone.condition(target.caption).rsample(n, generator(seed, target.digest, "detector", backbone.device))
        for target in targets
    ]
    return join(drawn)


def noises(x_0: Tensor, n: int, seed: int) -> Tensor:
    """``n`` noises in the shape of one image, the same for all images, on their device."""
    return torch.randn(n, *x_0.shape[1:], generator=torch.Generator().manual_seed(seed)).to(x_0.device)


def with_and_without(backbone: Backbone, targets: Sequence[Target], n: int, seed: int, detector: str) -> Context:
    """``n`` contexts of each image's condition, then as many of the unconditional pass.

    Raises:
        InvMMError: The model takes no prompt.
    """
    own = contexts(backbone, targets, n, seed)
    if not own:
        raise InvMMError(f"The detector {detector} needs a text-guided model; choose denoising-loss.")
    return join([own, *(backbone.condition(target.caption).null(n) for target in targets)])


def estimate(backbone: Backbone, x_t: Tensor, t: Tensor, context: Context, micro_batch: int) -> tuple[Tensor, Tensor]:
    """Estimate x_0 and the noise ``(x_t - alpha_t x_0) / sigma_t``.

    Args:
        backbone: The model.
        x_t: Noised data, ``(n, ...)``.
        t: One time, a scalar tensor.
        context: n contexts.
        micro_batch: Maximum number of rows of a network call.

    Returns:
        Two tensors in the shape of ``x_t``.
    """
    x_0 = estimated(backbone, x_t, t, context, micro_batch)
    alpha_t, sigma_t = backbone.schedule(t)
    return x_0, (x_t - alpha_t * x_0) / sigma_t
