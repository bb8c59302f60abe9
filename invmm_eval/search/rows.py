"""The cost of a search or of a detector, in network rows: one row is one sample in one network call.

A row with gradients counts three: its backward pass costs about two.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

from invmm_eval.models.backbone import Backbone
from invmm_eval.models.condition import Context

GRADIENT = 3
"""What a row with gradients counts."""


class Spender(Protocol):
    """What rows are spent on."""

    rows: float


class Counted:
    """A backbone that counts the rows of its network calls.

    Attributes:
        rows: The rows so far.
        largest: Number of samples in the largest call.
    """

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self.rows = 0
        self.largest = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backbone, name)

    def predict_x0(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        """Count, and call the backbone."""
        gradients = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x_t, *context.values()))
        self.rows += len(x_t) * (GRADIENT if gradients else 1)
        self.largest = max(self.largest, len(x_t))
        return self._backbone.predict_x0(x_t, t, context)

    @contextmanager
    def shared(self, spenders: Sequence[Spender]) -> Iterator[None]:
        """Add the rows of what is done inside to each of those it is done for, in equal shares."""
        before = self.rows
        try:
            yield
        finally:
            for spender in spenders:
                spender.rows += (self.rows - before) / len(spenders)
