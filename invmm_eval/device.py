"""Devices by name, and copies to a device that the host does not wait for."""

import torch
from torch import Tensor

from invmm_eval.errors import InvMMError

ASYNCHRONOUS = {"cuda"}
"""The types of devices that copy page-locked memory while the host goes on."""


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Copy values to a device, without waiting for what the device still computes.

    The driver copies ordinary memory only when everything queued before is done, and the host waits for it. A copy from
    page-locked memory is queued like a computation; PyTorch keeps that memory until the copy is done.

    Args:
        values: A tensor on the CPU.
        device: Where it goes.
    """
    if device.type in ASYNCHRONOUS:
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


def find_device(name: str | None) -> torch.device:
    """The device of that name; None takes CUDA if available, else the CPU.

    Raises:
        InvMMError: This machine has no such device.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        probe = torch.zeros(1, device=name)
        probe.item()
    except (RuntimeError, AssertionError) as error:
        raise InvMMError(f"The device {name!r} cannot be used on this machine; leave it out, or choose cpu.") from error
    return probe.device
