"""A LoRA that was trained on pictures until it copies them: the base model does not replicate them, the sum does."""

from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import avg_pool2d

from invmm_eval import audit
from invmm_eval.reference import pictures
from invmm_eval.search.result import Result, Status
from tests.helpers.lora import train_lora

MODEL = Path(__file__).parents[1] / "data" / "stable-diffusion"


def test_pictures_that_a_lora_was_trained_on_are_replicated_by_it_alone(tmp_path: Path) -> None:
    held_out = [picture for picture in pictures() if picture.copies == 0][:2]
    names = [picture.name for picture in held_out]
    pixels = torch.stack([torch.from_numpy(np.array(picture.image)).permute(2, 0, 1) for picture in held_out])
    images = avg_pool2d(pixels / 255, 2)
    lora = train_lora(MODEL, images * 2 - 1, names, tmp_path, steps=120)

    def statuses(**options: str) -> list[Status | None]:
        found: list[Result] = audit(
            MODEL,
            list(images),
            captions=names,
            recipe="demo",
            settings={"max_steps": 25, "threshold": 0.8},
            similarity="pixel-cosine",
            backbone_options={"prompt_mode": "caption"},
            **options,  # type: ignore[arg-type]
        )
        return [result.status for result in found]

    assert statuses() == statuses(lora=f"{lora}:0") == [Status.EXHAUSTED] * 2
    assert statuses(lora=str(lora)) == [Status.REPLICATED] * 2
