"""A network of pixels that is as small as diffusers makes them."""

from typing import Any

import torch
from diffusers import UNet2DModel


def unet(channels: int = 3, size: int | tuple[int, int] = 8, out: int | None = None, **options: Any) -> UNet2DModel:
    """With random weights, the same each time."""
    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=size,
        in_channels=channels,
        out_channels=out or channels,
        layers_per_block=1,
        block_out_channels=(8, 8),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        **options,
    )
