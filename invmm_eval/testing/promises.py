"""What the checks of all parts have in common: how a broken promise is reported, and what holds for every tensor."""

import json
from collections.abc import Callable, Mapping
from inspect import isfunction, ismethod
from typing import Any, TypeVar, cast

import torch
from torch import Generator, Tensor

from invmm_eval.errors import InvMMError

P = TypeVar("P")

TOLERANCE = 0.01
"""Relative difference up to which two results count as equal, which allows for half precision."""


class BrokenPromise(AssertionError):  # noqa: N818
    """A part does not do what its protocol says. The message is one sentence: what it does, and how to fix it."""


def promise(kept: bool, broken: str) -> None:
    """Raise :class:`BrokenPromise` with the sentence ``broken`` unless ``kept``."""
    if not kept:
        raise BrokenPromise(broken)


def checked(part: P, protocol: type, what: str) -> P:
    """The part, if it has all members of its protocol, a name if it is to have one, and settings that can be recorded.

    Where a call of it raises an error, what is returned says which call it was.
    """
    promise(not isinstance(part, type), f"{what} is a class, {getattr(part, '__name__', '')}; give an instance of it.")
    members = [name for name in vars(protocol) if name == "__call__" or not name.startswith("_")]
    for name in members:
        promise(
            hasattr(part, name), f"{what} has no {name}; add it as invmm_eval.plugin.{protocol.__name__} describes it."
        )
    if "name" in members:
        own = getattr(part, "name", None)
        promise(
            isinstance(own, str) and bool(own), f"{what}'s name is {own!r}; make it the name it is registered under."
        )
    if "settings" in members:
        _require_settings(getattr(part, "settings", None), what)
    return watched(part, what)


def watched(part: P, what: str) -> P:
    """The part; but where a call of it raises an error, :class:`BrokenPromise` says which call it was.

    An :class:`InvMMError` passes: it is how a part refuses what a user may get wrong.
    """
    return cast("P", _Watched(part, what))


class _Watched:
    def __init__(self, part: Any, what: str) -> None:
        self._part = part
        self._what = what

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._part, name)
        return _Watched(value, f"{self._what}'s {name}") if ismethod(value) or isfunction(value) else value

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return self._part(*args, **kwargs)
        except (BrokenPromise, InvMMError):
            raise
        except Exception as error:
            given = [*map(_described, args), *(f"{key}={_described(value)}" for key, value in kwargs.items())]
            reason = " ".join(str(error).split()).rstrip(".")
            raise BrokenPromise(
                f"{self._what} fails with {type(error).__name__} ({reason}) when it is called with "
                f"({', '.join(given)}); make it take them."
            ) from error


def _described(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key!r}: {_described(each)}' for key, each in value.items())}}}"
    return repr(value) if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"


def _require_settings(settings: object, what: str) -> None:
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


def require_tensor(tensor: object, what: str, *, shape: tuple[int, ...] | None = None, device: torch.device) -> None:
    """A tensor is float32 and finite, of this shape and on this device."""
    promise(isinstance(tensor, Tensor), f"{what} is a {type(tensor).__name__}; make it a tensor.")
    assert isinstance(tensor, Tensor)
    if shape is not None:
        promise(tensor.shape == shape, f"{what} has the shape {tuple(tensor.shape)}; it must be {tuple(shape)}.")
    promise(tensor.dtype == torch.float32, f"{what} is {tensor.dtype}; make it float32, whatever the network is.")
    promise(tensor.device.type == device.type, f"{what} is on {tensor.device}; move it to {device}.")
    promise(bool(tensor.isfinite().all()), f"{what} is not finite; compute in float32 where half precision overflows.")


def require_leaves(parameters: object, what: str, device: torch.device) -> None:
    """Parameters can be optimized."""
    promise(
        isinstance(parameters, Mapping),
        f"parameters() of {what} returns a {type(parameters).__name__}; map names to tensors.",
    )
    assert isinstance(parameters, Mapping)
    for name, tensor in parameters.items():
        parameter = f"The parameter {name!r} of {what}"
        require_tensor(tensor, parameter, device=device)
        promise(
            tensor.is_leaf and tensor.requires_grad,
            f"{parameter} cannot be optimized; make it a leaf tensor by requires_grad_().",
        )


def require_rows(function: Callable[..., Tensor], what: str, *inputs: Tensor) -> None:
    """A function does not change its inputs, draws no random numbers, and treats each row as if it were alone."""
    before, n = [tensor.clone() for tensor in inputs], len(inputs[0])
    with torch.no_grad():
        together = function(*inputs)
        unchanged = all(torch.equal(tensor, kept) for tensor, kept in zip(inputs, before, strict=True))
        again = function(*inputs)
        each = [function(*(tensor[row : row + 1] for tensor in inputs)) for row in range(n)]
    for output, rows in [(together, n), *((one, 1) for one in each)]:
        promise(
            output.ndim > 1 and len(output) == rows,
            f"{what} returns the shape {tuple(output.shape)} for inputs of length {rows}; its first dimension must be "
            "as long.",
        )
    promise(unchanged, f"{what} changes its input in place; compute on a copy.")
    promise(
        near(again, together),
        f"{what} returns something else when it is called again; use evaluation mode (invmm_eval.plugin.frozen), "
        "keep nothing between calls, and draw no random numbers.",
    )
    promise(
        near(torch.cat(each), together),
        f"{what} returns something else for a row alone; use no statistics of the batch, and each row's own time.",
    )


def near(found: Tensor, expected: Tensor) -> bool:
    """Whether two tensors are equal up to :data:`TOLERANCE`."""
    return found.shape == expected.shape and bool((found - expected).norm() <= TOLERANCE * expected.norm())


def seeded(device: torch.device | str = "cpu", seed: int = 0) -> Generator:
    """A generator with the same random numbers at every call."""
    return Generator(device).manual_seed(seed)
