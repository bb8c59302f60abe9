"""A pipeline of the true size of Stable Diffusion 1.5 or XL, with random weights, on the CPU: no weights are needed.

    python -m benchmarks.true_size                          # Stable Diffusion 1.5 at 512x512
    python -m benchmarks.true_size --model sdxl --dtype bfloat16
    python -m benchmarks.true_size --side 128 --set draws=2 --set check_images=1 --set sampler_steps=2

It is loaded and proved, a step and a check of `fast` are made, without its estimator and as `--set` changes it, and a
step of the published recipe with its gradient for one draw. Printed are network rows (one with a gradient counts three
times), rows per second of CPU time, and the peak memory of the process, in GiB. The tokenizer is the small one of the
tests; the tables of tokens have their true size.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from benchmarks.common.plans import measure as searched
from benchmarks.common.plans import planned
from benchmarks.common.script import parser, peak, write
from benchmarks.cost import PUBLISHED, network
from invmm_eval import load_backbone
from invmm_eval.recipe import Recipe, fast
from invmm_eval.search.target import Target
from invmm_eval.testing import tiny


def sized(small: Any, **networks: Any) -> Any:
    """A pipeline like a small one of the tests, with networks of their published sizes."""
    clip = CLIPTextModel(CLIPTextConfig(**PUBLISHED["clip"]))
    return small.from_pipe(small, dtype=torch.get_default_dtype(), text_encoder=clip, **networks)


def stable_diffusion() -> Any:
    unet = network(PUBLISHED["sd15"]["network"])
    return sized(tiny.tiny_stable_diffusion(), unet=unet, vae=network(PUBLISHED["autoencoder"], sample_size=512))


def sdxl() -> Any:
    second = CLIPTextModelWithProjection(CLIPTextConfig(**PUBLISHED["open_clip"]))
    vae = network(PUBLISHED["autoencoder"], sample_size=1024, scaling_factor=0.13025)
    return sized(tiny.tiny_sdxl(), unet=network(PUBLISHED["sdxl"]["network"]), vae=vae, text_encoder_2=second)


MODELS: Mapping[str, Callable[[], Any]] = {"sd15": stable_diffusion, "sdxl": sdxl}


def measure(pipeline: Any, side: int, changes: Mapping[str, Any]) -> Iterator[dict[str, str | float]]:
    """What is done, with seconds of CPU time, network rows and rows a second."""
    yield {"what": "the pipeline in memory"}
    started = time.process_time()
    backbone = load_backbone(pipeline, backbone_options={"image_size": side})
    yield {"what": "loading and proof", "seconds": round(time.process_time() - started)}
    cheap = fast(backbone.recipe).changed(max_steps=1, estimators=(), plain=0, **changes)
    once = {"max_steps": 1, "check_every": 1, "draws": 1, "check_images": 1, "sampler_steps": 1, "guidance": (1.0,)}
    published = backbone.recipe.changed(**once)
    noise = Target(torch.randint(0, 256, backbone.image_shape, dtype=torch.uint8), caption="a cat")
    for what, recipe in (("a step and a check of fast", cheap), ("a step with a gradient", published)):
        started = time.process_time()
        [result] = searched(planned(backbone, recipe), [noise])
        assert result.rows, result.error
        seconds = time.process_time() - started
        speed = round(result.rows / seconds, 3)
        yield {"what": what, "seconds": round(seconds), "rows": result.rows, "rows a second": speed}


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--model", choices=MODELS, default="sd15")
    arguments.add_argument("--side", type=int, help="pixels a side; by default the model's own")
    arguments.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    arguments.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = arguments.parse_args()
    torch.set_default_dtype(getattr(torch, options.dtype))
    pipeline = MODELS[options.model]()
    torch.set_default_dtype(torch.float32)
    side = options.side or pipeline.vae.config.sample_size
    found = []
    for facts in measure(pipeline, side, Recipe.parse(options.set)):
        found.append({**facts, "peak": round(peak(), 1)})
        print(*(f"{name} {value}" for name, value in found[-1].items()), sep=", ", flush=True)
        write(options.json, {"options": {**vars(options), "json": None}, "found": found})


if __name__ == "__main__":
    main()
