"""The families of diffusers that the backbone `diffusers` serves, as docs/models.md lists them.

``python -m tests.helpers.coverage`` prints the table: each family's small pipeline is saved, loaded, proved in full,
searched for two steps and sampled. Pixel models have a backbone of their own and no proof.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from diffusers import DDIMPipeline, DDPMPipeline
from diffusers.pipelines.auto_pipeline import AUTO_TEXT2IMAGE_PIPELINES_MAPPING
from torch import Generator

from invmm_eval.errors import InvMMError
from invmm_eval.models.ddpm import DDPM
from invmm_eval.models.generic.backbone import Diffusers
from invmm_eval.noise.gaussian import diagonal
from invmm_eval.recipe import Recipe
from invmm_eval.search.engine import invert
from invmm_eval.search.target import Target
from invmm_eval.similarity.pixel_cosine import PixelCosine
from tests.helpers.families import FAMILIES, build

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
QUICK = Recipe(name="quick", max_steps=2, draws=2, check_every=2, check_images=1, sampler_steps=2)
SIDES = {"sana": 32, "sana-sprint": 32, "wan": 32, "ltx": 32}
"""Sides of images where the pipeline does not take 16 pixels."""

ADDED = r"controlnet|control$|-pag$"
"""Families that are another one with an addition."""


def base_families() -> list[str]:
    """The names of AUTO_TEXT2IMAGE_PIPELINES_MAPPING without additions to other families."""
    return [name for name in AUTO_TEXT2IMAGE_PIPELINES_MAPPING if not re.search(ADDED, name)]


def row(name: str) -> str:
    """The family's line of the table."""
    pipeline = build(name)
    with TemporaryDirectory() as folder:
        pipeline.save_pretrained(folder)
        pixels = isinstance(pipeline, DDPMPipeline | DDIMPipeline)
        own = {} if pixels else {"soft_tokens": 4, "image_size": SIDES.get(name, 16), "prove": "full"}
        return f"| {name} | `{type(pipeline).__name__}` | {_outcome(folder, DDPM if pixels else Diffusers, own)} |"


def _outcome(folder: str, kind: type[DDPM | Diffusers], own: Mapping[str, Any]) -> str:
    modes = {"soft": "soft, caption, empty", "caption": "caption, empty"}
    refused = ""
    for mode, served in modes.items():
        options: dict[str, Any] = {"prompt_mode": mode, **own}
        try:
            model = kind(folder, revision=None, device=torch.device("cpu"), dtype=torch.float32, **options)
        except InvMMError as error:
            refused = str(error)
            continue
        pixels = torch.randint(0, 256, model.image_shape, dtype=torch.uint8, generator=Generator().manual_seed(0))
        similarity = PixelCosine(device=torch.device("cpu"))
        (result,) = invert(model, [Target(pixels, caption="1")], similarity, diagonal(), recipe=QUICK)
        if result.error:
            raise RuntimeError(result.error)
        if not model.settings.get("prompt_mode"):
            return "none"
        return "classes" if "class" in str(model.condition("1").null(1)) else served
    return f"refused: {refused}"


def table() -> str:
    """The whole table."""
    return "\n".join(["| family | pipeline | prompt modes |", "|---|---|---|", *map(row, FAMILIES)])


if __name__ == "__main__":
    print(table())
