"""Weights that stay in CPU memory and are on the device while they are needed, moved by accelerate or diffusers."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from accelerate import cpu_offload_with_hook
from diffusers.hooks import apply_group_offloading
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from invmm_eval.errors import InvMMError

_HOWS = ("model", "group")


def home(how: str | None, device: torch.device) -> torch.device:
    """Where weights are loaded: in CPU memory if they are moved from there, else on the device.

    Raises:
        InvMMError: There is no such way to move them.
    """
    if how not in (None, *_HOWS):
        raise InvMMError(f"There is no offload {how!r}; choose one of {', '.join(_HOWS)}.")
    return torch.device("cpu") if how else device


def offload(
    modules: Sequence[nn.Module], how: str | None, device: torch.device
) -> Callable[[], AbstractContextManager[Any]]:
    """Let the weights of modules in CPU memory be moved.

    Args:
        modules: In the order in which they compute.
        how: ``model`` moves a module as a whole and back when the next one computes, ``group`` moves each layer while
            it computes; None moves nothing.
        device: Where to compute.

    Returns:
        Makes the context in which gradients are computed: :func:`weights_left`, or nothing where nothing is moved.
    """
    if how is None:
        return nullcontext
    if how == "group":
        for module in modules:
            apply_group_offloading(module, onload_device=device, offload_type="leaf_level")
    else:
        hooks = [cpu_offload_with_hook(module, execution_device=device)[1] for module in modules]
        for hook, previous in zip(hooks, [hooks[-1], *hooks[:-1]], strict=True):
            hook.hook.prev_module_hook = None if previous is hook else previous
    return partial(weights_left, device)


def weights_left(device: torch.device) -> saved_tensors_hooks:
    """A context in which the gradient keeps no copies of weights: it moves them to the device again.

    Without it autograd would keep each layer's weights on the device, or find them in CPU memory.
    """
    return saved_tensors_hooks(_pack, partial(_unpack, device))


def _pack(tensor: Tensor) -> Any:
    """A weight, or a view of one, as where it is; other tensors as they are."""
    weight = tensor if isinstance(tensor, nn.Parameter) else tensor._base
    if not isinstance(weight, nn.Parameter):
        return tensor
    return weight, tensor.size(), tensor.stride(), tensor.storage_offset() - weight.storage_offset()


def _unpack(device: torch.device, packed: Any) -> Tensor:
    if isinstance(packed, Tensor):
        return packed
    weight, size, stride, offset = packed
    moved: Tensor = weight.detach().to(device)
    return moved.as_strided(size, stride, moved.storage_offset() + offset)
