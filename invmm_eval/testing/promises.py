"""What the checks of all parts have in common: how a broken promise is told, and how tensors are held to theirs."""

import json
from collections.abc import Callable, Mapping

import torch
from torch import Generator, Tensor

TOLERANCE = 0.01
"""Two results are the same that differ by no more than this part of their length: room for half precision."""


class BrokenPromise(AssertionError):  # noqa: N818
    """A part does not do what its protocol says, told in one sentence: what it does, and how to mend it."""


def promise(kept: bool, broken: str) -> None:
    """Raise :class:`BrokenPromise` with the sentence ``broken`` unless the promise is kept."""
    if not kept:
        raise BrokenPromise(broken)


def hold_members(part: object, protocol: type, what: str) -> None:
    """A part has all that its protocol names."""
    for name in vars(protocol):
        promise(name.startswith("_") or hasattr(part, name), f"{what} has no {name}; add it as {protocol} says.")


def hold_settings(settings: object, what: str) -> None:
    """Settings can be kept in a record and compared with it."""
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
    """Parameters are what an optimizer can move."""
    promise(isinstance(parameters, Mapping), f"{what} are a {type(parameters).__name__}; map names to tensors.")
    assert isinstance(parameters, Mapping)
    for name, tensor in parameters.items():
        hold_tensor(tensor, f"{what}, {name!r},", device=device)
        promise(
            tensor.is_leaf and tensor.requires_grad,
            f"{what}, {name!r}, cannot be optimised; make it a leaf tensor by requires_grad_().",
        )


def hold_rows(function: Callable[..., Tensor], what: str, *inputs: Tensor) -> None:
    """A function leaves its inputs alone, draws no random numbers, and treats each row as if it were alone."""
    before = [tensor.clone() for tensor in inputs]
    with torch.no_grad():
        together = function(*inputs)
        unchanged = all(torch.equal(tensor, kept) for tensor, kept in zip(inputs, before, strict=True))
        again = function(*inputs)
        alone = torch.cat([function(*(tensor[row : row + 1] for tensor in inputs)) for row in range(len(together))])
    promise(unchanged, f"{what} changes its input in place; compute on a copy.")
    promise(
        near(again, together),
        f"{what} gives something else when it is asked again; use evaluation mode (invmm_eval.frozen), and draw no "
        "random numbers.",
    )
    promise(
        near(alone, together),
        f"{what} gives a row something else when it is alone; use no statistics of the batch, and each row's own time.",
    )


def near(found: Tensor, expected: Tensor) -> bool:
    """Whether two tensors are the same up to :data:`TOLERANCE`."""
    return found.shape == expected.shape and bool((found - expected).norm() <= TOLERANCE * expected.norm())


def seeded(device: torch.device | str = "cpu", seed: int = 0) -> Generator:
    """Random numbers that are the same at every call."""
    return Generator(device).manual_seed(seed)
