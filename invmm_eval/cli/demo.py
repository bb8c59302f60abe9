"""The demo: audit the reference model, and compare the results with what is known about its training set."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from invmm_eval.audits.images import Source
from invmm_eval.audits.options import Choices, ModelOptions, Resources
from invmm_eval.audits.plan import make_plan
from invmm_eval.audits.progress import Bar
from invmm_eval.cli.console import err, out, say
from invmm_eval.recipe import DEMO
from invmm_eval.reference import COPIES, MICRO_BATCH, MODEL, THRESHOLD, Picture, choose, pictures
from invmm_eval.reports.terminal import ResultsTable
from invmm_eval.search.result import Result
from invmm_eval.search.status import Verdict
from invmm_eval.statistics.ranking import auc


def run_demo(
    folder: Path,
    *,
    recipe: str,
    settings: Mapping[str, Any],
    seed: int,
    batch_size: int,
    device: str | None,
    quick: bool = False,
) -> None:
    """Audit pictures of each number of copies, and held-out ones. Print a table and the AUC, and draw the samples.

    Args:
        folder: Output folder of the results and of ``replicas.png``.
        recipe: ``demo``, ``dose`` or ``paper``.
        settings: Changes to the recipe.
        seed: Seed of the audit.
        batch_size: Number of images searched together.
        device: None takes CUDA if available, else the CPU.
        quick: Whether to take one picture of each kind, and at most two checks of the recipe ``demo``.

    Raises:
        InvMMError: The folder cannot be used, or a setting does not exist.
    """
    chosen = choose(pictures(), each=1, held_out=1) if quick else choose(pictures())
    budget = {"max_steps": 2 * DEMO.check_every} if quick and recipe == DEMO.name else {}
    settings = {"threshold": THRESHOLD, **budget, **settings}
    choices = Choices(similarity="pixel-cosine", recipe=recipe, settings=settings, seed=seed)
    plan = make_plan(ModelOptions(source=MODEL), choices, device=device)
    say(
        f"Auditing the reference model with {len(chosen)} pictures whose number of copies in the training set is "
        f"known. Recipe: {plan.recipe.name}.",
        err,
    )
    with Bar(len(chosen)) as bar:
        measured = plan.run(
            [Source(picture.name, picture.image) for picture in chosen],
            Resources(batch_size=batch_size, micro_batch=MICRO_BATCH),
            out=folder,
            on_step=bar.on_step,
        )
        results = sorted(bar.over(measured), key=lambda result: result.index)
    copies = {picture.name: picture.copies for picture in chosen}
    out.print(ResultsTable(results, copies))
    most, held_out = ([r.invmm for r in results if copies[r.name] == count] for count in (COPIES[0], 0))
    say(f"AUC of pictures with {COPIES[0]} copies against held-out ones: {auc(most, held_out):.2f}")
    draw(chosen, results).savefig(folder / "replicas.png", dpi=120)
    say(f"Each picture with the model's samples from the noise found for it: {folder / 'replicas.png'}")
    say(f"Results are in {folder}. To write a report: invmm-eval report {folder}")


def draw(chosen: Sequence[Picture], results: Sequence[Result]) -> Figure:
    """Draw each picture with its verdict and its samples."""
    columns = 2
    rows = -(-len(chosen) // columns)
    figure = Figure(figsize=(13, 0.62 * rows + 0.6), layout="constrained")
    figure.suptitle("Picture, and samples from the noise found for it: replicas if it was memorized")
    axes = np.atleast_2d(figure.subplots(rows, columns))
    for axis in axes.flat:
        axis.axis("off")
    for position, (picture, result) in enumerate(zip(chosen, results, strict=True)):
        axis = axes[position % rows, position // rows]
        axis.imshow(_row(picture, result), aspect="equal")
        copies = f"{picture.copies} copies" if picture.copies != 1 else "1 copy"
        axis.text(
            -6,
            16,
            f"{'held out' if picture.copies == 0 else copies}\n{result.verdict}",
            ha="right",
            va="center",
            color="#b3261e" if result.verdict in (Verdict.MEMORIZED, Verdict.REPLICABLE) else "#386a20",
        )
    return figure


def _row(picture: Picture, result: Result) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The picture, a gap, and its samples at the best guidance scale, side by side on a white background."""
    target = torch.from_numpy(np.array(picture.image))
    height, width, channels = target.shape
    row = np.full((height, 9 * (width + 2) + 6, channels), 255, np.uint8)
    row[:, :width] = target.numpy()
    if result.check is None:
        return row
    for position, sample in enumerate(result.check.samples[result.check.best_scale], start=1):
        left = position * (width + 2) + 6
        row[:, left : left + width] = sample.permute(1, 2, 0).numpy()
    return row
