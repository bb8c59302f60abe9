"""Similarities that come with invmm_eval."""

from torch import Tensor

from invmm_eval.errors import InvMMError


def check_same_size(a: Tensor, b: Tensor) -> None:
    """Refuse to compare images pixel by pixel that have other sizes or channels.

    Raises:
        InvMMError: The shapes differ in more than the first dimension.
    """
    if a.shape[1:] != b.shape[1:]:
        raise InvMMError(
            f"Images of shape {tuple(a.shape[1:])} cannot be compared pixel by pixel with images of shape "
            f"{tuple(b.shape[1:])}; resize them to one size."
        )
