"""What the checks of all parts have in common: how a broken promise is reported, and what holds for every tensor."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Generator, Tensor

TOLERANCE = 0.01
"""Relative difference up to which two results count as equal, which allows for half precision."""


class BrokenPromise(AssertionError):  # noqa: N818
    """A part does not do what its protocol says. The message is one sentence: what it does, and how to fix it."""


def promise(kept: bool, broken: str) -> None:
    """Raise :class:`BrokenPromise` with the sentence ``broken`` unless ``kept``."""
    if not kept:
        raise BrokenPromise(broken)


def hold_members(part: Any, protocol: type, what: str) -> None:
    """A part has all members of its protocol, a name if it is to have one, and settings that can be recorded."""
    members = [name for name in vars(protocol) if not name.startswith("_")]
    for name in members:
        promise(
            hasattr(part, name),
            f"{what} has no {name}; add it as described in {protocol.__module__}.{protocol.__name__}.",
        )
    if "name" in members:
        promise(
            isinstance(part.name, str) and bool(part.name),
            f"{what}'s name is {part.name!r}; make it the name it is registered under.",
        )
    if "settings" in members:
        _hold_settings(part.settings, what)


def _hold_settings(settings: object, what: str) -> None:
    """Settings can be stored as JSON and compared with what was stored."""
    promise(isinstance(settings, Mapping), f"{what}'s settings are a {type(settings).__name__}; make them a mapping.")
    assert isinstance(settings, Mapping)
    for key, value in settings.items():
        try:
            same = (
                isinstance(value, str | int | float | None) and json.loads(json.dumps(value, allow_nan=False)) == value
            )
        except ValueError:
            same = False
        promise(
            isinstance(key, str) and same,
            f"{what}'s settings have {key!r}: {value!r}; name each by a text, and give it as a text, a finite number "
            "or None.",
        )


def hold_tensor(tensor: object, what: str, *, shape: tuple[int, ...] | None = None, device: torch.device) -> None:
    """A tensor is float32 and finite, of this shape and on this device."""
    promise(isinstance(tensor, Tensor), f"{what} is a {type(tensor).__name__}; make it a tensor.")
    assert isinstance(tensor, Tensor)
    if shape is not None:
        promise(tensor.shape == shape, f"{what} has the shape {tuple(tensor.shape)}; it must be {shape}.")
    promise(tensor.dtype == torch.float32, f"{what} is {tensor.dtype}; make it float32, whatever the network is.")
    promise(tensor.device.type == device.type, f"{what} is on {tensor.device}; move it to {device}.")
    promise(bool(tensor.isfinite().all()), f"{what} is not finite; compute in float32 where half precision overflows.")


def hold_leaves(parameters: object, what: str, device: torch.device) -> None:
    """Parameters can be optimized."""
    promise(isinstance(parameters, Mapping), f"{what} are a {type(parameters).__name__}; map names to tensors.")
    assert isinstance(parameters, Mapping)
    for name, tensor in parameters.items():
        hold_tensor(tensor, f"{what}, {name!r},", device=device)
        promise(
            tensor.is_leaf and tensor.requires_grad,
            f"{what}, {name!r}, cannot be optimized; make it a leaf tensor by requires_grad_().",
        )


def hold_rows(function: Callable[..., Tensor], what: str, *inputs: Tensor) -> None:
    """A function does not change its inputs, draws no random numbers, and treats each row as if it were alone."""
    before = [tensor.clone() for tensor in inputs]
    with torch.no_grad():
        together = function(*inputs)
        unchanged = all(torch.equal(tensor, kept) for tensor, kept in zip(inputs, before, strict=True))
        again = function(*inputs)
        alone = torch.cat([function(*(tensor[row : row + 1] for tensor in inputs)) for row in range(len(together))])
    promise(unchanged, f"{what} changes its input in place; compute on a copy.")
    promise(
        near(again, together),
        f"{what} returns something else when it is called again; use evaluation mode (invmm_eval.plugin.frozen), and "
        "draw no random numbers.",
    )
    promise(
        near(alone, together),
        f"{what} returns something else for a row alone; use no statistics of the batch, and each row's own time.",
    )


def near(found: Tensor, expected: Tensor) -> bool:
    """Whether two tensors are equal up to :data:`TOLERANCE`."""
    return found.shape == expected.shape and bool((found - expected).norm() <= TOLERANCE * expected.norm())


def seeded(device: torch.device | str = "cpu", seed: int = 0) -> Generator:
    """A generator with the same random numbers at every call."""
    return Generator(device).manual_seed(seed)
