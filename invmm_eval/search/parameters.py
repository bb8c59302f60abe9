"""The parameters of a noise or a condition, copied and set."""

from collections.abc import Mapping

import torch
from torch import Tensor

from invmm_eval.errors import InvMMError


def copied(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies that do not change with the parameters."""
    return {name: tensor.detach().clone() for name, tensor in parameters.items()}


def restore(parameters: Mapping[str, Tensor], saved: Mapping[str, Tensor], what: str) -> None:
    """Set parameters to saved values.

    Args:
        parameters: Of a noise or of a condition.
        saved: Their values.
        what: What they belong to, for the error.

    Raises:
        InvMMError: Names or shapes differ.
    """
    if {name: tensor.shape for name, tensor in parameters.items()} != {name: t.shape for name, t in saved.items()}:
        raise InvMMError(f"The result's {what} does not fit this model and noise family: it was made with others.")
    with torch.no_grad():
        for name, tensor in parameters.items():
            tensor.copy_(saved[name])
