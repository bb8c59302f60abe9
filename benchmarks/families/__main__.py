"""Every family of models, each by a small model that is trained here on real, captioned images.

OpenMoji pictures, their names as captions: some are repeated 64 times in the training set, some occur once, others are
held out. Copies among plain samples are counted, and repeated and held-out pictures are audited, with the prompt
searched, with the caption and with the empty prompt:

- at 16x16, families with published settings: unconditional latent diffusion behind a vector-quantised autoencoder,
  Stable Diffusion predicting noise and velocity, and the rectified flows of Stable Diffusion 3 and Flux;
- at 32x32, families without: Sana, Z-Image, FLUX.2 klein, and DiT, whose classes are the rows of Unicode's chart.

    python -m benchmarks.families                    # trains missing models, then audits
    python -m benchmarks.families --only sd-noise sd3 --picture families.png
    python -m benchmarks.families --only dit --device cuda --steps 6000 --recipes   # no audits
    python -m benchmarks.families --only sana z-image --recipes --screens           # detectors instead

Models are kept in ``runs/families``, audits in ``runs/families/audits``: a second call does what is missing, and
``invmm-eval report`` shows what was found.
"""

import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.common.keep import kept
from benchmarks.common.measures import auc, tpr
from benchmarks.common.script import parser, show
from benchmarks.families import models
from benchmarks.families.data import Data, data, sources, stacked
from benchmarks.families.models import FAMILIES, LATENT, Family, trained
from benchmarks.families.outputs import row_number
from invmm_eval import audit, host, screen
from invmm_eval.audits.folder import read
from invmm_eval.audits.folder.files import picture_of
from invmm_eval.recipe import RECIPES, Recipe
from invmm_eval.reference import MICRO_BATCH, Picture
from invmm_eval.search.result import Result, Status
from invmm_eval.search.sampling import chunks
from invmm_eval.search.sheet import GAP, opened
from invmm_eval.similarity.pixel_cosine import PixelCosine
from invmm_eval.testing.tiny import ready

PLAIN = "copies.json"
"""The counts among plain samples, in the folder of a model."""
BATCH, STEPS = 256, 25
DETECTORS = ("denoising-loss", "secmi", "pia", "caption-magnitude", "sharpness")
AUDITS = ("family", "prompt", "recipe", "repeated", "held out", "AUC", "seconds")
SCREENS = ("family", "detector", "AUC", "recall at 1 % false positives", "rows an image")


def copies(
    family: Family, folder: Path, chosen: Sequence[Picture], samples: int, device: torch.device
) -> dict[str, Any]:
    """For each picture the shares of copies among samples with its caption and, of all together, without any."""
    pipeline = ready(DiffusionPipeline.from_pretrained(folder).to(device))
    similarity = PixelCosine(device=device)
    features = similarity.embed(stacked(chosen, family.side).to(device) / 2 + 0.5)

    def share(text: str, wanted: Tensor) -> list[float]:
        drawn = similarity.embed(drawn_from(pipeline, text, samples, family))
        found: list[float] = (similarity.compare(drawn, wanted) >= LATENT["threshold"]).float().mean(dim=0).tolist()
        return found

    own = [share(family.caption(picture), features[[row]])[0] for row, picture in enumerate(chosen)]
    none = share("", features)
    return {p.name: {"caption": a, "empty": b} for p, a, b in zip(chosen, own, none, strict=True)}


@torch.no_grad()
def drawn_from(pipeline: Any, text: str, samples: int, family: Family) -> Tensor:
    """Images ``(samples, 3, side, side)`` of the pipeline's own call, not guided."""
    takes = inspect.signature(type(pipeline).__call__).parameters
    given = {
        "height": family.side,
        "width": family.side,
        "guidance_scale": 1.0,
        "use_resolution_binning": False,
        "num_inference_steps": STEPS,
        "output_type": "np",
        "generator": torch.Generator().manual_seed(0),
        **family.options,
    }
    given = {key: value for key, value in given.items() if key in takes}
    name, prompt = ("class_labels", row_number(pipeline, text)) if "class_labels" in takes else ("prompt", text)
    sizes = (part.stop - part.start for part in chunks(samples, BATCH))
    batches = [pipeline(**{name: [prompt] * size}, **given).images for size in sizes]
    return torch.from_numpy(np.concatenate(batches)).movedim(-1, 1).to(pipeline.device)


def screened(name: str, model: Path, known: Data, device: str) -> Iterator[tuple[str, ...]]:
    """How each detector ranks all pictures, each with its caption: the repeated ones, and single and held-out ones."""
    family = FAMILIES[name]
    images = sources([*known.repeated, *known.single, *known.held_out], family.side, family.caption)
    options = {**family.options, "prompt_mode": "caption"}
    for detector in DETECTORS:
        found = screen(model, images, detector=detector, backbone_options=options, device=device)
        scores, labels = [one.score or 0 for one in found], [one.index < len(known.repeated) for one in found]
        separated = f"{auc(scores, labels):.3f}", f"{tpr(scores, labels):.2f}"
        yield name, detector, *separated, f"{host().detector(detector)().rows:g}"


def verdict(results: Sequence[Result]) -> str:
    """The number of results that are replicated, and the range of their values."""
    values = sorted(one.invmm for one in results if one.status is Status.REPLICATED)
    spread = f", InvMM {values[0]:.3f} to {values[-1]:.3f}" if values else ""
    return f"{len(values)} of {len(results)}{spread}"


def figure(shown: Mapping[str, Path]) -> Figure:
    """Of each audit two repeated and two held-out pictures, with at most four samples at its first guidance scale."""
    drawn = Figure(figsize=(12.4, 0.85 * len(shown)), layout="constrained")
    every = drawn.subplots(len(shown), 4, squeeze=False, subplot_kw={"frame_on": False, "xticks": [], "yticks": []})
    for axes, (name, folder) in zip(every, shown.items(), strict=True):
        axes[0].text(-0.03, 0.5, name, transform=axes[0].transAxes, ha="right", va="center", fontsize=9)
        rows = read(folder).rows
        half = len(rows) // 2
        for axis, row in zip(axes, [*rows[:half][:2], *rows[half:][:2]], strict=False):
            if sheet := opened(picture_of(folder, row)):
                side = FAMILIES[name].side
                axis.imshow(sheet.crop((0, 0, min(5 * (side + GAP) - GAP, sheet.width), side)))
            axis.set_title(f"{row['name']}: {row['status']}", fontsize=8)
    return drawn


def main(arguments: Sequence[str] | None = None) -> None:
    known = parser(__doc__, json=False)
    known.add_argument("--only", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    known.add_argument("--steps", type=int, default=2500, help="training steps of each model")
    known.add_argument("--audited", type=int, default=4, help="pictures of each kind")
    known.add_argument("--samples", type=int, default=256, help="plain samples for each picture; 0 counts none")
    known.add_argument("--modes", nargs="+", default=("", "soft", "caption", "empty"), help="prompt modes, of all")
    known.add_argument("--recipes", nargs="*", choices=RECIPES, default=["demo", "fast"])
    known.add_argument("--screens", action="store_true", help="also rank all captioned pictures by each detector")
    known.add_argument("--device", default="cpu")
    known.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    known.add_argument("--picture", type=Path)
    options = known.parse_args(arguments)
    torch.set_num_threads(1)
    device, changes = torch.device(options.device), Recipe.parse(options.set)
    rows: list[tuple[str, ...]] = []
    shown: dict[str, Path] = {}
    for name in options.only:
        family = FAMILIES[name]
        images, captioned = data(), "caption" in family.modes
        model = trained(name, images, options.steps, device)
        chosen = [group[: options.audited] for group in (images.repeated, images.held_out)]
        every = [picture for group in chosen for picture in group]
        if options.samples and captioned:
            request = {"samples": options.samples, "pictures": [picture.name for picture in every]}
            counted = kept(model / PLAIN, request, partial(copies, family, model, every, options.samples, device))
            print(name, json.dumps(counted, indent=1))
        if options.screens and captioned:
            show(SCREENS, screened(name, model, images, options.device))
        for mode, recipe in product(filter(options.modes.__contains__, family.modes), options.recipes):
            settings = {key: value for key, value in family.settings.items() if (recipe, key) != ("fast", "guidance")}
            folder = models.CACHE / "audits" / "-".join(filter(None, (name, mode, recipe)))
            found = audit(
                model,
                sources(every, family.side, family.caption),
                out=folder,
                backbone_options={**family.options, **({"prompt_mode": mode} if mode else {})},
                similarity="pixel-cosine",
                recipe=recipe,
                settings={**settings, **changes},
                device=options.device,
                micro_batch=MICRO_BATCH,
            )
            seconds = f"{sum(one.seconds_steps + one.seconds_checks for one in found):.0f}"
            repeated, held_out = found[: len(chosen[0])], found[len(chosen[0]) :]
            area = auc([-one.invmm for one in found], [True] * len(repeated) + [False] * len(held_out))
            rows.append((name, mode or "-", recipe, verdict(repeated), verdict(held_out), f"{area:.2f}", seconds))
            show(AUDITS, rows[-1:])
            if mode in ("", "soft") and recipe == options.recipes[0]:
                shown[name] = folder
    show(AUDITS, rows)
    if options.picture:
        figure(shown).savefig(options.picture, dpi=110)


if __name__ == "__main__":
    main()
