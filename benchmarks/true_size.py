"""A pipeline of the true size of Stable Diffusion 1.5 or XL, with random weights, on the CPU: no weights are needed.

    python -m benchmarks.true_size                          # Stable Diffusion 1.5 at 512x512
    python -m benchmarks.true_size --model sdxl --dtype bfloat16
    python -m benchmarks.true_size --side 128 --draws 2 --samples 1 --sampler-steps 2

It is loaded and proved, a step and a check of `fast` are made, without its estimator, and a step of the published
recipe with its gradient for one draw. Printed are network rows (one with a gradient counts three times), rows per
second of CPU time, and the peak memory of the process. The tokenizer is the small one of the tests; the tables of
tokens have their true size.
"""

import resource
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from diffusers import EulerDiscreteScheduler, PNDMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from benchmarks.common.plans import measure as searched
from benchmarks.common.plans import planned
from benchmarks.common.script import parser, write
from benchmarks.cost import PUBLISHED, network
from invmm_eval import load_backbone
from invmm_eval.recipe import fast
from invmm_eval.search.target import Target
from invmm_eval.testing.tiny import tiny_clip_tokenizer


def clip() -> CLIPTextModel:
    return CLIPTextModel(CLIPTextConfig(**PUBLISHED["clip"]))


def stable_diffusion() -> StableDiffusionPipeline:
    """Stable Diffusion 1.5, by its published configurations."""
    return StableDiffusionPipeline(
        vae=network(PUBLISHED["autoencoder"], sample_size=512),
        text_encoder=clip(),
        tokenizer=tiny_clip_tokenizer(),
        unet=network(PUBLISHED["sd15"]["network"]),
        scheduler=PNDMScheduler(**PUBLISHED["times"], skip_prk_steps=True),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sdxl() -> StableDiffusionXLPipeline:
    """Stable Diffusion XL, by its published configurations."""
    return StableDiffusionXLPipeline(
        vae=network(PUBLISHED["autoencoder"], sample_size=1024, scaling_factor=0.13025),
        text_encoder=clip(),
        text_encoder_2=CLIPTextModelWithProjection(CLIPTextConfig(**PUBLISHED["open_clip"])),
        tokenizer=tiny_clip_tokenizer(),
        tokenizer_2=tiny_clip_tokenizer("!"),
        unet=network(PUBLISHED["sdxl"]["network"]),
        scheduler=EulerDiscreteScheduler(**PUBLISHED["times"]),
        add_watermarker=False,
    )


MODELS: Mapping[str, tuple[Callable[[], Any], int]] = {"sd15": (stable_diffusion, 512), "sdxl": (sdxl, 1024)}


def peak() -> float:
    """The most memory that the process has had, GiB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 1)


def measure(pipeline: Any, side: int, changes: Mapping[str, Any]) -> Iterator[dict[str, str | float]]:
    """What is done, with seconds of CPU time, network rows, rows a second, and the peak memory so far in GiB."""
    yield {"what": "the pipeline in memory", "peak": peak()}
    started = time.process_time()
    backbone = load_backbone(pipeline, backbone_options={"image_size": side})
    yield {"what": "loading and proof", "seconds": round(time.process_time() - started), "peak": peak()}
    cheap = fast(backbone.recipe).changed(max_steps=1, estimators=(), plain=0, **changes)
    once = {"max_steps": 1, "check_every": 1, "draws": 1, "check_images": 1, "sampler_steps": 1, "guidance": (1.0,)}
    published = backbone.recipe.changed(**once)
    noise = Target(torch.randint(0, 256, backbone.image_shape, dtype=torch.uint8), caption="a cat")
    for what, recipe in (("a step and a check of fast", cheap), ("a step with a gradient", published)):
        started = time.process_time()
        [result] = searched(planned(backbone, recipe), [noise])
        assert result.rows, result.error
        seconds = time.process_time() - started
        speed = {"seconds": round(seconds), "rows": result.rows, "rows a second": round(result.rows / seconds, 3)}
        yield {"what": what, **speed, "peak": peak()}


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--model", choices=MODELS, default="sd15")
    arguments.add_argument("--side", type=int, help="pixels a side; by default the model's own")
    arguments.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    arguments.add_argument("--draws", type=int, default=24)
    arguments.add_argument("--samples", type=int, default=8)
    arguments.add_argument("--sampler-steps", type=int, default=10)
    options = arguments.parse_args()
    make, own = MODELS[options.model]
    side, dtype = options.side or own, getattr(torch, options.dtype)
    torch.set_default_dtype(dtype)
    pipeline = make()
    torch.set_default_dtype(torch.float32)
    changes = {"draws": options.draws, "check_images": options.samples, "sampler_steps": options.sampler_steps}
    found = []
    for facts in measure(pipeline, side, changes):
        found.append(facts)
        print(*(f"{name} {value}" for name, value in facts.items()), sep=", ", flush=True)
        write(options.json, {"options": {**vars(options), "json": None}, "found": found})


if __name__ == "__main__":
    main()
