"""The cost of an audit of the published models, by calculation: floating-point operations and memory per image.

    python -m benchmarks.cost                 # at 100 TFLOP/s sustained
    python -m benchmarks.cost --tflops 30

The networks are built from their published configurations without memory for their weights (PyTorch's meta device),
and PyTorch's own counter adds up the operations of one forward pass and one backward pass to the inputs. They are
multiplied by the passes of the published recipe in the worst case: an image that is never replicated.

Nothing is measured; decoding, text encoders and the similarity are left out. The memory kept for the backward pass is
an upper bound: it includes attention's matrices, which fused kernels on CUDA do not keep.
"""

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common.script import parser, show, write
from invmm_eval import recipe as recipes
from invmm_eval.recipe import Recipe

GIB = 2**30
PUBLISHED: Mapping[str, Any] = tomllib.loads(Path(__file__).with_name("published.toml").read_text("utf-8"))
MODELS = {name: model for name, model in PUBLISHED.items() if "recipe" in model}


@dataclass(frozen=True)
class Pass:
    """One draw through a network."""

    parameters: int
    forward: int  # operations of the forward pass
    backward: int  # operations of the backward pass to the inputs
    kept: int  # bytes kept for the backward pass, in float32


def network(settings: Mapping[str, Any], **more: Any) -> Any:
    """A network of diffusers, with random weights."""
    made = getattr(diffusers, settings["class"])
    return made(**{name: value for name, value in settings.items() if name != "class"}, **more)


def one_pass(make: Callable[[], nn.Module], inputs: Mapping[str, Sequence[int]]) -> Pass:
    """Count one draw; gradients go to every input except the time."""
    with torch.device("meta"):
        built = make().requires_grad_(False).eval()
        searched = {name: torch.randn(1, *shape, requires_grad=True) for name, shape in inputs.items()}
        time = torch.zeros(1, dtype=torch.long)
    weights = {parameter.untyped_storage()._cdata for parameter in built.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()._cdata
        if storage not in weights:
            kept[storage] = tensor
        return tensor

    forward, backward = FlopCounterMode(display=False), FlopCounterMode(display=False)
    with forward, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = built(**searched, timestep=time).sample
    with backward:
        torch.autograd.grad(output.sum(), list(searched.values()))
    return Pass(
        sum(parameter.numel() for parameter in built.parameters()),
        forward.get_total_flops(),
        backward.get_total_flops(),
        sum(tensor.untyped_storage().nbytes() for tensor in kept.values()),
    )


def operations(cost: Pass, recipe: Recipe) -> dict[str, float]:
    """Operations of an image that is never replicated: of its steps, and of its checks made in two ways.

    ``complete checks`` make all samples at every check. ``checks here`` make one sample at every scale, which decides a
    check whose samples are all unlike the image, and all samples at the last check.
    """
    checks = recipe.max_steps // recipe.check_every
    # A sample at each guidance scale; one other than 1 takes two passes a sampler step.
    a_sample = sum(recipe.sampler_steps * (1 if scale == 1 else 2) for scale in recipe.guidance) * cost.forward
    return {
        "steps": recipe.max_steps * recipe.draws * (cost.forward + cost.backward),
        "complete checks": checks * recipe.check_images * a_sample,
        "checks here": (checks - 1 + recipe.check_images) * a_sample,
    }


def row(name: str, tflops: float) -> dict[str, str]:
    """The table's row of a model."""
    model = MODELS[name]
    cost = one_pass(partial(network, model["network"]), model["inputs"])
    found = {
        "model": model["title"],
        "parameters, million": f"{cost.parameters / 1e6:.1f}",
        "weights in 16 bits, GiB": f"{2 * cost.parameters / GIB:.2f}",
        "kept a draw in 16 bits, at most, GiB": f"{cost.kept / 2 / GIB:.2f}",
        "forward, TFLOP": f"{cost.forward / 1e12:.3g}",
        "backward, TFLOP": f"{cost.backward / 1e12:.3g}",
    }
    for what, count in operations(cost, getattr(recipes, model["recipe"])).items():
        minutes = count / tflops / 1e12 / 60
        found[f"{what}, min"] = f"{minutes:.2g}" if minutes < 1 else f"{minutes:.0f}"
    return found


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--tflops", type=float, default=100, help="sustained operations per second, x 1e12")
    options = arguments.parse_args()
    rows = [row(name, options.tflops) for name in MODELS]
    title = f"An image that is never replicated, at {options.tflops:g} TFLOP/s, calculated"
    show(list(rows[0]), (one.values() for one in rows), title=title, width=140)
    write(options.json, rows)


if __name__ == "__main__":
    main()
