"""The cost of a search or a detector, in rows of network calls."""

from typing import Any, cast

import torch
from torch import Tensor

from invmm_eval.models.backbone import Backbone
from invmm_eval.models.condition import Context


class Counted:
    """A backbone that records the rows of each network call, with and without gradients to the inputs."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self.calls_without: list[int] = []
        self.calls_with: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backbone, name)

    def predict_x0(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        gradients = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x_t, *context.values()))
        (self.calls_with if gradients else self.calls_without).append(len(x_t))
        return self._backbone.predict_x0(x_t, t, context)

    @property
    def rows_with(self) -> int:
        return sum(self.calls_with)

    @property
    def rows(self) -> int:
        """All rows; one with a gradient counts three."""
        return sum(self.calls_without) + 3 * self.rows_with


def counted(backbone: Backbone) -> tuple[Backbone, Counted]:
    """The counting backbone, typed as a backbone and as a counter."""
    counter = Counted(backbone)
    return cast("Backbone", counter), counter
