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
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from benchmarks.common.script import parser, write
from invmm_eval import InvMMError, load_backbone
from invmm_eval.models.backbone import Backbone
from invmm_eval.noise.gaussian import diagonal
from invmm_eval.recipe import Recipe, fast
from invmm_eval.search.engine import invert
from invmm_eval.search.target import Target
from invmm_eval.similarity.pixel_cosine import PixelCosine
from invmm_eval.testing.tiny import tiny_clip_tokenizer

TIMES = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
BLOCKS = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
}
FIRST = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
SECOND = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}
MARKS = {"vocab_size": 49408, "bos_token_id": 128, "eos_token_id": 129, "pad_token_id": 129}


def stable_diffusion() -> StableDiffusionPipeline:
    """Stable Diffusion 1.5, by its published configurations."""
    return StableDiffusionPipeline(
        vae=AutoencoderKL(**BLOCKS, sample_size=512),
        text_encoder=CLIPTextModel(CLIPTextConfig(**FIRST, **MARKS)),
        tokenizer=tiny_clip_tokenizer(),
        unet=UNet2DConditionModel(sample_size=64, cross_attention_dim=768),
        scheduler=PNDMScheduler(**TIMES, skip_prk_steps=True),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sdxl() -> StableDiffusionXLPipeline:
    """Stable Diffusion XL, by its published configurations."""
    second = CLIPTextConfig(**SECOND, **MARKS, hidden_act="gelu", projection_dim=1280)
    return StableDiffusionXLPipeline(
        vae=AutoencoderKL(**BLOCKS, sample_size=1024, scaling_factor=0.13025),
        text_encoder=CLIPTextModel(CLIPTextConfig(**FIRST, **MARKS)),
        text_encoder_2=CLIPTextModelWithProjection(second),
        tokenizer=tiny_clip_tokenizer(),
        tokenizer_2=tiny_clip_tokenizer("!"),
        unet=UNet2DConditionModel(
            sample_size=128,
            block_out_channels=(320, 640, 1280),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2, 10),
            attention_head_dim=(5, 10, 20),
            cross_attention_dim=2048,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
        ),
        scheduler=EulerDiscreteScheduler(**TIMES),
        add_watermarker=False,
    )


MODELS: Mapping[str, tuple[Callable[[], Any], int]] = {"sd15": (stable_diffusion, 512), "sdxl": (sdxl, 1024)}


def peak() -> float:
    """The most memory that the process has had, GiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def rows_of(backbone: Backbone, recipe: Recipe) -> int:
    """The network rows of a search for a picture of noise."""
    pixels = torch.randint(0, 256, backbone.image_shape, dtype=torch.uint8)
    similarity = PixelCosine(device=backbone.device)
    [result] = invert(backbone, [Target(pixels, caption="a cat")], similarity, diagonal(), recipe=recipe)
    if result.rows is None:
        raise InvMMError(str(result.error))
    return result.rows


def measure(pipeline: Any, side: int, changes: Mapping[str, Any]) -> Iterator[dict[str, str | float]]:
    """What is done, with seconds of CPU time, network rows, rows a second, and the peak memory so far in GiB."""
    yield {"what": "the pipeline in memory", "peak": round(peak(), 1)}
    started = time.process_time()
    backbone = load_backbone(pipeline, backbone_options={"image_size": side})
    yield {"what": "loading and proof", "seconds": round(time.process_time() - started), "peak": round(peak(), 1)}
    cheap = fast(backbone.recipe).changed(max_steps=1, estimators=(), plain=0, **changes)
    once = {"max_steps": 1, "check_every": 1, "draws": 1, "check_images": 1, "sampler_steps": 1, "guidance": (1.0,)}
    published = backbone.recipe.changed(**once)
    for what, recipe in (("a step and a check of fast", cheap), ("a step with a gradient", published)):
        started = time.process_time()
        rows = rows_of(backbone, recipe)
        seconds = time.process_time() - started
        speed = {"seconds": round(seconds), "rows": rows, "rows a second": round(rows / seconds, 3)}
        yield {"what": what, **speed, "peak": round(peak(), 1)}


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
