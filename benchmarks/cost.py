"""The cost of an audit of the published models, by calculation: floating-point operations and memory per image.

    python benchmarks/cost.py                 # at 100 TFLOP/s sustained
    python benchmarks/cost.py --tflops 30

The networks are built from their published configurations without memory for their weights (PyTorch's meta device),
and PyTorch's own counter adds up the operations of one forward pass and one backward pass to the inputs. They are
multiplied by the passes of the published recipe in the worst case: an image that is never replicated.

Nothing is measured; decoding, text encoders and the similarity are left out. The memory kept for the backward pass is
an upper bound: it includes attention's matrices, which fused kernels on CUDA do not keep.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from diffusers import SD3Transformer2DModel, UNet2DConditionModel, UNet2DModel
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common.script import parser, show, write
from invmm_eval.recipe import DDPM, LDM, STABLE_DIFFUSION, STABLE_DIFFUSION_3, Recipe

GIB = 2**30


@dataclass(frozen=True)
class Family:
    """A published model: its network, the shapes of the network's inputs for one draw, and its recipe."""

    name: str
    network: Callable[[], nn.Module]
    inputs: Mapping[str, tuple[int, ...]]
    recipe: Recipe


@dataclass(frozen=True)
class Pass:
    """One draw through a network."""

    parameters: int
    forward: int  # operations of the forward pass
    backward: int  # operations of the backward pass to the inputs
    kept: int  # bytes kept for the backward pass, in float32


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
        {"sample": (3, 32, 32)},
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
        {"sample": (3, 64, 64)},
        LDM,
    ),
    Family(
        "CompVis/stable-diffusion-v1-4, 512x512",
        lambda: UNet2DConditionModel(sample_size=64, cross_attention_dim=768),
        {"sample": (4, 64, 64), "encoder_hidden_states": (77, 768)},
        STABLE_DIFFUSION,
    ),
    Family(
        "stabilityai/stable-diffusion-2-1-base, 512x512",
        lambda: UNet2DConditionModel(
            sample_size=64, cross_attention_dim=1024, attention_head_dim=(5, 10, 20, 20), use_linear_projection=True
        ),
        {"sample": (4, 64, 64), "encoder_hidden_states": (77, 1024)},
        STABLE_DIFFUSION,
    ),
    Family(
        "stabilityai/stable-diffusion-3.5-medium, 512x512",
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
        {
            "hidden_states": (16, 64, 64),
            "encoder_hidden_states": (77 + 77, 4096),
            "pooled_projections": (2048,),
        },
        STABLE_DIFFUSION_3,
    ),
)


def one_pass(family: Family) -> Pass:
    """Count one draw; gradients go to every input except the time."""
    with torch.device("meta"):
        network = family.network().requires_grad_(False).eval()
        searched = {name: torch.randn(1, *shape, requires_grad=True) for name, shape in family.inputs.items()}
        time = torch.zeros(1, dtype=torch.long)
    weights = {parameter.untyped_storage()._cdata for parameter in network.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()._cdata
        if storage not in weights:
            kept[storage] = tensor
        return tensor

    forward, backward = FlopCounterMode(display=False), FlopCounterMode(display=False)
    with forward, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = network(**searched, timestep=time).sample
    with backward:
        torch.autograd.grad(output.sum(), list(searched.values()))
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
    """Operations of an image that is never replicated: of its steps, and of its checks made in two ways.

    ``complete`` makes all samples at every check. ``first`` makes one sample at every scale, which decides a check
    whose samples are all unlike the image, and all samples at the last check.
    """
    checks = recipe.max_steps // recipe.check_every
    a_sample = check_passes(recipe) * cost.forward
    return {
        "steps": recipe.max_steps * recipe.draws * (cost.forward + cost.backward),
        "complete": checks * recipe.check_images * a_sample,
        "first": (checks - 1 + recipe.check_images) * a_sample,
    }


COLUMNS = (
    *("model", "parameters, million", "weights in 16 bits, GiB", "kept a draw in 16 bits, at most, GiB"),
    *("forward, TFLOP", "backward, TFLOP", "steps, min", "complete checks, min", "checks here, min"),
)


def row(family: Family, tflops: float) -> list[str]:
    """The table's row of a model."""
    cost = one_pass(family)
    minutes = [value / tflops / 1e12 / 60 for value in operations(cost, family.recipe).values()]
    return [
        family.name,
        f"{cost.parameters / 1e6:.1f}",
        f"{2 * cost.parameters / GIB:.2f}",
        f"{cost.kept / 2 / GIB:.2f}",
        f"{cost.forward / 1e12:.3g}",
        f"{cost.backward / 1e12:.3g}",
        *(f"{value:.2g}" if value < 1 else f"{value:.0f}" for value in minutes),
    ]


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--tflops", type=float, default=100, help="sustained operations per second, x 1e12")
    options = arguments.parse_args()
    rows = [row(family, options.tflops) for family in FAMILIES]
    title = f"An image that is never replicated, at {options.tflops:g} TFLOP/s, calculated"
    show(COLUMNS, rows, title=title, width=140)
    write(options.json, {"columns": COLUMNS, "rows": rows})


if __name__ == "__main__":
    main()
