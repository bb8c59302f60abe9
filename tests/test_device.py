"""Devices by name."""

import torch

from invmm_eval.device import find_device


def test_the_device() -> None:
    assert find_device("cpu") == torch.device("cpu")
    best = "cuda" if torch.cuda.is_available() else "cpu"
    assert find_device(None).type == best
