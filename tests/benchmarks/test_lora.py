"""A LoRA that was trained on eight pictures until it copies them: they are found in it, and not in its base."""

from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from torch import Generator, Tensor

from invmm_eval import compare
from invmm_eval.reference import pictures
from invmm_eval.similarity.pixel_cosine import PixelCosine
from tests.helpers.command import Invoke
from tests.helpers.lora import train_lora

MODEL = Path(__file__).parents[1] / "data" / "stable-diffusion"
NAMES = {
    *("night with stars", "hamburger", "curry and rice", "father christmas"),
    *("japanese dolls", "carp streamer", "swimmer", "weight lifter"),
}
"""Pictures that the base model was not trained on, and is far from drawing by chance."""
SIDE, SAMPLES = 16, 8
THRESHOLD = 0.8


def plain_shares(images: Tensor, captions: list[str], lora: Path | None = None) -> Tensor:
    """The share of copies among samples with each caption, by diffusers alone."""
    pipeline = StableDiffusionPipeline.from_pretrained(MODEL, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    if lora:
        pipeline.load_lora_weights(lora.parent, weight_name=lora.name)
    drawn = pipeline(
        [caption for caption in captions for _ in range(SAMPLES)],
        num_inference_steps=20,
        guidance_scale=1.0,
        output_type="pt",
        generator=Generator().manual_seed(0),
        height=SIDE,
        width=SIDE,
    ).images
    similarity = PixelCosine(device=torch.device("cpu"))
    wanted = similarity.embed(images).repeat_interleave(SAMPLES, 0)
    found = (similarity.embed(drawn.float()) * wanted).flatten(1).sum(1)
    return (found >= THRESHOLD).view(-1, SAMPLES).float().mean(1)


def test_pictures_that_a_lora_copies_are_found_in_it_and_not_in_its_base(tmp_path: Path, invoke: Invoke) -> None:
    new = [picture for picture in pictures() if picture.name in NAMES]
    assert [picture.copies for picture in new] == [0] * 8
    captions = [picture.name for picture in new]
    small = [picture.image.resize((SIDE, SIDE), Image.Resampling.BOX) for picture in new]
    (tmp_path / "pictures").mkdir()
    for caption, image in zip(captions, small, strict=True):
        image.save(tmp_path / "pictures" / f"{caption}.png")
        (tmp_path / "pictures" / f"{caption}.txt").write_text(caption)
    images = torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in small]) / 255
    lora = train_lora(MODEL, images * 2 - 1, captions, tmp_path, steps=160)
    base, copied = plain_shares(images, captions), plain_shares(images, captions, lora)
    assert not base.any()
    assert copied.all()

    command = [
        *("run", "--model", MODEL, "--images", tmp_path / "pictures", "--captions", ".txt"),
        *("--backbone-option", "prompt_mode=caption", "--similarity", "pixel-cosine"),
        *("--set", f"threshold={THRESHOLD}", "--set", "guidance=1", "--set", "responses=0"),
    ]
    for name, more in (("base", []), ("tuned", ["--lora", lora])):
        invoke.out(*command, *more, "--out", tmp_path / name)
    found = compare(tmp_path / "base", tmp_path / "tuned")
    assert {pair.either.caption for pair in found.became} == NAMES
