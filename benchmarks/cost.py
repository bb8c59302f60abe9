"""What an audit of the published models costs, by calculation: floating-point operations and memory an image.

    python benchmarks/cost.py                 # at 100 TFLOP/s sustained
    python benchmarks/cost.py --tflops 30

The networks are built from their published configurations without memory for their weights (PyTorch's meta device),
and PyTorch's own counter adds up the operations of one pass forward and one backward to the inputs. Times the passes
that the published recipe asks for, that is the worst case: an image that is never replicated.

Nothing is measured; decoding, text encoders and the similarity are left aside. What is kept for the pass backward is
an upper bound: it holds attention's matrices, which fused kernels on CUDA do not keep.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers import SD3Transformer2DModel, UNet2DConditionModel, UNet2DModel
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from invmm_eval.recipe import DDPM, LDM, STABLE_DIFFUSION, STABLE_DIFFUSION_3, Recipe

GIB = 2**30


@dataclass(frozen=True)
class Family:
    """A published model: its network, what the network is given for one draw, and its recipe."""

    name: str
    network: Callable[[], nn.Module]
    inputs: Callable[[], dict[str, Tensor]]
    recipe: Recipe


@dataclass(frozen=True)
class Pass:
    """One draw through a network.

    Attributes:
        parameters: Of the network.
        forward: Operations of the pass forward.
        backward: Operations of the pass backward to the inputs.
        kept: Bytes kept for the pass backward, in float32.
    """

    parameters: int
    forward: int
    backward: int
    kept: int


def one_time() -> Tensor:
    return torch.zeros(1, dtype=torch.long)


FAMILIES = (
    Family(
        "google/ddpm-cifar10-32",
        lambda: UNet2DModel(
            sample_size=32,
            block_out_channels=(128, 256, 256, 256),
            down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=None,
            downsample_padding=0,
        ),
        lambda: {"sample": torch.randn(1, 3, 32, 32), "timestep": one_time()},
        DDPM,
    ),
    Family(
        "CompVis/ldm-celebahq-256",
        lambda: UNet2DModel(
            sample_size=64,
            block_out_channels=(224, 448, 672, 896),
            down_block_types=("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=32,
        ),
        lambda: {"sample": torch.randn(1, 3, 64, 64), "timestep": one_time()},
        LDM,
    ),
    Family(
        "CompVis/stable-diffusion-v1-4, 512x512",
        lambda: UNet2DConditionModel(sample_size=64, cross_attention_dim=768),
        lambda: {
            "sample": torch.randn(1, 4, 64, 64),
            "timestep": one_time(),
            "encoder_hidden_states": torch.randn(1, 77, 768),
        },
        STABLE_DIFFUSION,
    ),
    Family(
        "stabilityai/stable-diffusion-2-1, 768x768",
        lambda: UNet2DConditionModel(
            sample_size=96, cross_attention_dim=1024, attention_head_dim=(5, 10, 20, 20), use_linear_projection=True
        ),
        lambda: {
            "sample": torch.randn(1, 4, 96, 96),
            "timestep": one_time(),
            "encoder_hidden_states": torch.randn(1, 77, 1024),
        },
        STABLE_DIFFUSION,
    ),
    Family(
        "stabilityai/stable-diffusion-3.5-medium, 1024x1024",
        lambda: SD3Transformer2DModel(
            sample_size=128,
            num_layers=24,
            attention_head_dim=64,
            num_attention_heads=24,
            caption_projection_dim=1536,
            pos_embed_max_size=384,
            dual_attention_layers=tuple(range(13)),
            qk_norm="rms_norm",
        ),
        lambda: {
            "hidden_states": torch.randn(1, 16, 128, 128),
            "timestep": one_time(),
            "encoder_hidden_states": torch.randn(1, 77 + 256, 4096),
            "pooled_projections": torch.randn(1, 2048),
        },
        STABLE_DIFFUSION_3,
    ),
)


def one_pass(family: Family) -> Pass:
    """Count one draw; gradients go to every input that is not a time."""
    with torch.device("meta"):
        network = family.network().requires_grad_(False).eval()
        inputs = family.inputs()
    searched = [tensor.requires_grad_() for tensor in inputs.values() if tensor.is_floating_point()]
    weights = {parameter.untyped_storage()._cdata for parameter in network.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()._cdata
        if storage not in weights:
            kept[storage] = tensor
        return tensor

    forward, backward = FlopCounterMode(display=False), FlopCounterMode(display=False)
    with forward, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = network(**inputs).sample
    with backward:
        torch.autograd.grad(output.sum(), searched)
    return Pass(
        sum(parameter.numel() for parameter in network.parameters()),
        forward.get_total_flops(),
        backward.get_total_flops(),
        sum(tensor.untyped_storage().nbytes() for tensor in kept.values()),
    )


def check_passes(recipe: Recipe) -> int:
    """Passes of one sample made at every guidance scale; a scale other than 1 takes two a sampler step."""
    return sum(recipe.sampler_steps * (1 if scale == 1 else 2) for scale in recipe.guidance)


def operations(cost: Pass, recipe: Recipe) -> dict[str, float]:
    """Operations of an image that is never replicated: of its steps, and of its checks by three ways of making them.

    ``complete`` makes all samples at every check; ``first`` is the least that settles a check, one sample at every
    scale, with the last check complete, as here where no sample is ever like the image.
    """
    checks = recipe.max_steps // recipe.check_every
    a_sample = check_passes(recipe) * cost.forward
    return {
        "steps": recipe.max_steps * recipe.draws * (cost.forward + cost.backward),
        "complete": checks * recipe.check_images * a_sample,
        "first": (checks - 1 + recipe.check_images) * a_sample,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--tflops", type=float, default=100, help="operations a second that the device sustains, x 1e12"
    )
    options = parser.parse_args()
    table = Table(
        "model",
        "parameters, million",
        "weights in 16 bits, GiB",
        "kept a draw in 16 bits, at most, GiB",
        "forward, TFLOP",
        "backward, TFLOP",
        "steps, min",
        "complete checks, min",
        "checks here, min",
        title=f"An image that is never replicated, at {options.tflops:g} TFLOP/s, calculated",
    )
    for family in FAMILIES:
        cost = one_pass(family)
        minutes = [value / options.tflops / 1e12 / 60 for value in operations(cost, family.recipe).values()]
        table.add_row(
            family.name,
            f"{cost.parameters / 1e6:.1f}",
            f"{2 * cost.parameters / GIB:.2f}",
            f"{cost.kept / 2 / GIB:.2f}",
            f"{cost.forward / 1e12:.3g}",
            f"{cost.backward / 1e12:.3g}",
            *(f"{value:.2g}" if value < 1 else f"{value:.0f}" for value in minutes),
        )
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
