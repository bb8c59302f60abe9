"""Copies to a device that the host does not wait for."""

import torch
from torch import Tensor

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
