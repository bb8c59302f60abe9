"""One small pixel model for each set of images, and the one that ships with the package."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import DDIMPipeline, DDIMScheduler, UNet2DModel

from benchmarks.common.training import fit_velocity
from benchmarks.evidence.data import Data
from invmm_eval.device import find_device
from invmm_eval.reference import MODEL, NAME


@dataclass(frozen=True)
class Training:
    """Channels of the network's levels, for how many steps of how many images it is trained, and what is made of it."""

    channels: tuple[int, ...]
    steps: int
    batch: int = 32
    bfloat16: bool = False  # whether the network's forward passes are in half precision
    samples: int = 53_248  # plain samples in which copies are counted
    seeds: int = 10  # of the fast search


TRAININGS: Mapping[str, Training] = {
    "digits": Training((24, 48), 2500),
    "emoji": Training((16, 32, 64), 3000),
    "patches": Training((16, 32, 64), 3000),
    "photographs": Training((32, 48, 64, 64), 4500, 64, bfloat16=True),
    NAME: Training((32, 64, 96), 7000),
}


def network(data: Data, channels: tuple[int, ...]) -> UNet2DModel:
    """A U-Net with attention on its lowest level."""
    _, depth, side, _ = data.images.shape
    plain = len(channels) - 1
    return UNet2DModel(
        sample_size=side,
        in_channels=depth,
        out_channels=depth,
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=8,
        block_out_channels=channels,
        down_block_types=("DownBlock2D",) * plain + ("AttnDownBlock2D",),
        up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * plain,
    )


def folder(root: Path, name: str) -> Path:
    """Where a model is kept."""
    return MODEL if name == NAME else root / "models" / name


def trained(root: Path, data: Data, training: Training) -> None:
    """Train the set's model, unless it is there already."""
    done = folder(root, data.name)
    if done.exists():
        return
    torch.manual_seed(0)
    device = find_device(None)
    unet, noising = network(data, training.channels).to(device), DDIMScheduler(prediction_type="v_prediction")
    fit_velocity(
        unet,
        noising,
        data.rows().to(device),
        batch=training.batch,
        steps=training.steps,
        rate=2e-3,
        warmup=training.steps // 20,
        bfloat16=training.bfloat16,
        name=data.name,
    )
    part = done.with_suffix(".part")
    DDIMPipeline(unet, noising).save_pretrained(part)
    part.rename(done)
