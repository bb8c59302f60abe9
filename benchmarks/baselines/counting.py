"""What a detector spends, and steps that several detectors take."""

from typing import Any, cast

import torch
from torch import Tensor

from invmm_eval.models.backbone import Backbone
from invmm_eval.models.condition import Context
from invmm_eval.models.schedule import Schedule
from invmm_eval.search.sampling import chunks

ROWS = 256
"""At most so many rows go through the network at once."""


class Counted:
    """A backbone that counts the rows its network sees, those that gradients are taken of apart.

    Attributes:
        plain: Rows without gradients.
        differentiated: Rows with gradients to their inputs, which cost about three times as much.
    """

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self.plain = 0
        self.differentiated = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backbone, name)

    def predict_x0(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        """The backbone's estimate."""
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x_t, *context.values())):
            self.differentiated += len(x_t)
        else:
            self.plain += len(x_t)
        return self._backbone.predict_x0(x_t, t, context)


def counted(backbone: Backbone) -> tuple[Backbone, Counted]:
    """The counting backbone, as a backbone and as a counter."""
    counter = Counted(backbone)
    return cast("Backbone", counter), counter


def time_at(schedule: Schedule, share: float) -> Tensor:
    """The time that lies at ``share`` in (0, 1] of the way from clean to noisiest, to a hundredth."""
    return schedule.grid(100)[100 - max(1, round(100 * share))]


@torch.no_grad()
def estimate(backbone: Backbone, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """The estimates of x_0 and of the noise ``(x_t - alpha_t x_0) / sigma_t`` at one time, without a caption."""
    condition = backbone.condition()
    generator = torch.Generator(backbone.device).manual_seed(0)
    x_0 = torch.cat(
        [
            backbone.predict_x0(rows, t.expand(len(rows)), condition.rsample(len(rows), generator))
            for rows in (x_t[cut] for cut in chunks(len(x_t), ROWS))
        ]
    )
    alpha_t, sigma_t = backbone.schedule(t)
    return x_0, (x_t - alpha_t * x_0) / sigma_t


def ddim(backbone: Backbone, x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """One deterministic step from time ``t`` to time ``s``, in either direction (Song et al. 2021, equation 12)."""
    x_0, noise = estimate(backbone, x_t, t)
    alpha_s, sigma_s = backbone.schedule(s)
    return alpha_s * x_0 + sigma_s * noise
