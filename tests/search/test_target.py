"""The digest of an image, which its random numbers follow from."""

import pytest
import torch
from torch import Tensor

from invmm_eval.errors import InvMMError
from invmm_eval.search.target import Target


def ramp() -> Tensor:
    return torch.tensor([[[0, 1]], [[2, 3]], [[4, 255]]], dtype=torch.uint8)


def test_the_digest_is_the_hash_of_shape_and_pixels() -> None:
    r"""printf '(3, 1, 2)\x00\x01\x02\x03\x04\xff' | sha256sum"""
    target = Target(ramp(), name="a")
    assert target.digest == "e5309cdd7bc4c258d50ed3cbc20098cf4abe3d359c69fd7edfd08ccc1e05d757"
    assert Target(ramp().mT.contiguous().mT, name="b", caption="c").digest == target.digest


@pytest.mark.parametrize("image", [ramp().float(), ramp()[None], ramp()[0], ramp().to("meta")])
def test_a_target_is_uint8_and_whole(image: Tensor) -> None:
    with pytest.raises(InvMMError, match=r"uint8 tensor \(C, H, W\) on the CPU"):
        Target(image)
