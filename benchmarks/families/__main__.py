"""Every family of models, each by a small model that is trained here on real, captioned images.

OpenMoji pictures, their names as captions: some are repeated 64 times in the training set, some occur once, others are
held out. Copies among plain samples are counted, and repeated and held-out pictures are audited, with the prompt
searched, with the caption and with the empty prompt:

- at 16x16, families with a backbone of their own: unconditional latent diffusion behind a vector-quantised
  autoencoder, Stable Diffusion predicting noise and velocity, and the rectified flows of Stable Diffusion 3 and Flux;
- at 32x32, families that the backbone ``diffusers`` serves: Sana, Z-Image, FLUX.2 klein, and DiT, whose classes are the
  rows of Unicode's chart; and the pixel model that ships with the package.

    python -m benchmarks.families                    # trains missing models, then audits
    python -m benchmarks.families --only sd-noise sd3 --json families.json
    python -m benchmarks.families --only dit --device cuda --steps 6000 --recipes   # no audits
    python -m benchmarks.families --only sana z-image --recipes --screens           # detectors instead

Models are kept in ``runs/families``.
"""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.common.script import parser, show, write
from benchmarks.families import screens
from benchmarks.families.audits import COLUMNS, audit, cells, figure, row, strip, verdict
from benchmarks.families.data import data, targets
from benchmarks.families.plain import copies
from benchmarks.families.training import FAMILIES, trained
from invmm_eval.audits.pictures import prepare
from invmm_eval.recipe import RECIPES, Recipe
from invmm_eval.reference import COPIES as REPEATS
from invmm_eval.reference import MODEL, THRESHOLD, choose
from invmm_eval.reference import pictures as reference_pictures
from invmm_eval.search.target import Target

PLAIN = "plain.json"
"""The counts among plain samples, in the folder of a model."""


def pixel_targets(count: int) -> list[Target]:
    """The reference model's most repeated pictures, and as many held-out ones."""
    chosen = choose(reference_pictures(), each=count, held_out=count)
    repeated, held_out = ([p for p in chosen if p.copies == copies] for copies in (REPEATS[0], 0))
    count = min(len(repeated), len(held_out))
    return [Target(prepare(p.image, (3, 32, 32)), p.name) for p in (*repeated[:count], *held_out[:count])]


def main(arguments: Sequence[str] | None = None) -> None:
    known = parser(__doc__)
    known.add_argument("--only", nargs="+", choices=["pixel", *FAMILIES], default=["pixel", *FAMILIES])
    known.add_argument("--steps", type=int, default=2500, help="training steps of each model")
    known.add_argument("--audited", type=int, default=4, help="pictures of each kind")
    known.add_argument("--samples", type=int, default=256, help="plain samples for each picture; 0 counts none")
    known.add_argument("--recipes", nargs="*", choices=RECIPES, default=["demo", "fast"])
    known.add_argument("--screens", action="store_true", help="also rank all captioned pictures by each detector")
    known.add_argument("--device", default="cpu")
    known.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    known.add_argument("--picture", type=Path)
    options = known.parse_args(arguments)
    torch.set_num_threads(1)
    device = torch.device(options.device)
    changes = Recipe.parse(options.set)
    rows: list[dict[str, Any]] = []
    shown: dict[str, list[tuple[str, NDArray[np.uint8]]]] = {}

    def measure(
        name: str,
        mode: str,
        model: Path,
        chosen: Sequence[Target],
        backbone_options: Mapping[str, Any],
        settings: Mapping[str, Any],
    ) -> None:
        half = len(chosen) // 2
        for recipe in options.recipes:
            started = time.perf_counter()
            found = audit(
                model, chosen, backbone_options, {**settings, **changes}, recipe=recipe, device=options.device
            )
            rows.append(row(name, mode, recipe, found[:half], found[half:], time.perf_counter() - started))
            show(COLUMNS, [cells(rows[-1])])
            write(options.json, rows)
            if mode in ("", "soft") and recipe == options.recipes[0]:
                shown[name] = [
                    (f"{kind}: {verdict(found[i])}", strip(chosen[i].image, found[i]))
                    for kind, first in (("repeated", 0), ("held out", half))
                    for i in range(first, first + min(2, half))
                ]

    if "pixel" in options.only:
        measure("pixel", "", MODEL, pixel_targets(options.audited), {}, {"threshold": THRESHOLD})
    for name in (name for name in FAMILIES if name in options.only):
        family = FAMILIES[name]
        images = data(family.side)
        model = trained(name, images, options.steps, device)
        chosen = [*images.repeated[: options.audited], *images.held_out[: options.audited]]
        if options.samples and "caption" in family.modes and not (model / PLAIN).exists():
            counted = copies(name, model, chosen, options.samples, device)
            write(model / PLAIN, {"samples": options.samples, "shares": counted})
            print(name, json.dumps(counted, indent=1))
        if options.screens and "caption" in family.modes:
            ranked = screens.screen(name, family, model, images, options.device)
            show(screens.COLUMNS, [screens.cells(one) for one in ranked])
        for mode in family.modes:
            prompt = {"prompt_mode": mode} if mode else {}
            pictures = targets(chosen, [family.caption(picture) for picture in chosen])
            measure(name, mode, model, pictures, {**family.options, **prompt}, family.settings)
    show(COLUMNS, map(cells, rows))
    if options.picture:
        figure(shown).savefig(options.picture, dpi=110)


if __name__ == "__main__":
    main()
