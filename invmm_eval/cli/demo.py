"""The demo: audit the reference model, and compare the results with what is known about its training set."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.table import Column, Table

from invmm_eval.audits.images import Source
from invmm_eval.audits.options import SET_OPTIONS
from invmm_eval.audits.request import Request
from invmm_eval.audits.whole.audit import audited
from invmm_eval.cli.console import err, out, say
from invmm_eval.cli.ending import say_price
from invmm_eval.errors import on_disk
from invmm_eval.reference import MICRO_BATCH, MODEL, THRESHOLD, Picture, all_pictures, choose, pictures, plain_samples
from invmm_eval.reports.figures import COLOURS
from invmm_eval.reports.terminal import Name
from invmm_eval.reports.whole import sentences
from invmm_eval.search.result import Result
from invmm_eval.search.sentence import share_ends, share_text
from invmm_eval.search.status import Verdict

QUICK = {"clean": 2, "control": 2}


def run_demo(
    folder: Path, *, settings: Mapping[str, Any], quick: bool = False, dry_run: bool = False, **options: Any
) -> None:
    """Audit the whole training set of the reference model, and images that it never saw.

    Print what was found beside what was counted, and what is left open; draw the samples.

    Args:
        folder: Output folder of the results and of ``replicas.png``.
        settings: Changes to the recipe, which must estimate the share of plain samples that are copies.
        quick: Whether to audit one image of each number of copies and two held-out ones.
        dry_run: Whether to print only what it costs.
        **options: Further options of the audit.

    Raises:
        InvMMError: The folder cannot be used, or an option is wrong.
    """
    known = choose(pictures(), each=1, held_out=2) if quick else all_pictures()
    request = Request.of(
        MODEL,
        [Source(picture.name, picture.image) for picture in known],
        names=SET_OPTIONS,
        similarity="pixel-cosine",
        settings={"threshold": THRESHOLD, **settings},
        micro_batch=MICRO_BATCH,
        **(QUICK if quick else {}),
        **options,
    )
    if dry_run:
        say_price(request, screens=True)
        return
    say(
        f"Auditing the reference model for {len(known)} images: it is known how often each was in its training set.",
        err,
    )
    whole = audited(request, folder)
    assert whole
    results = sorted(whole.by_index.values(), key=lambda result: -result.least_share)
    copies = [known[result.index] for result in results]
    found = [(p, r) for p, r in zip(copies, results, strict=True) if r.verdict is Verdict.MEMORIZED]
    out.print(compared(found))
    for words in sentences(whole):
        say(words)
    rest = [(p, r) for p, r in zip(copies, results, strict=True) if r.verdict is not Verdict.MEMORIZED]
    drawn = [*found, *rest[: max(3, len(found) // 3)]]
    path = folder / "replicas.png"
    with on_disk(f"The samples cannot be drawn in {path}"):
        draw([picture for picture, _ in drawn], [result for _, result in drawn]).savefig(path, dpi=120)
    say(f"Each image found, and some others, with the model's samples: {path}")
    say(f"Results are in {folder}. To write a report: invmm-eval report {folder}")


def compared(found: Sequence[tuple[Picture, Result]]) -> Table:
    """What the audit says about images, beside what was counted."""
    table = Table(
        *("image", Column("repeated", justify="right"), "estimated", Column("95 %", no_wrap=True), "counted"),
        box=SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        caption_justify="left",
        caption="Shares of plain samples that are copies, estimated by the audit with 95 % limits, and counted in "
        f"{plain_samples():,}. Repeated: how often the image was in the training set.",
    )
    for picture, result in found:
        counted = "not counted" if picture.drawn is None else share_text(picture.drawn / plain_samples())
        share = result.plain_share
        told = (share_text(share.rate), share_ends(share.low, share.high)) if share else ("not estimated", "")
        table.add_row(Name(picture.name), str(picture.copies), *told, counted)
    return table


def draw(chosen: Sequence[Picture], results: Sequence[Result]) -> Figure:
    """Draw each image with its verdict and its samples."""
    columns = 2
    rows = -(-len(chosen) // columns)
    figure = Figure(figsize=(13, 0.62 * rows + 0.6), layout="constrained")
    figure.suptitle("Each image, how often it was in the training set, and samples from the noise that was found")
    axes = np.atleast_2d(figure.subplots(rows, columns))
    for axis in axes.flat:
        axis.axis("off")
        axis.set_anchor("W")
    for position, (picture, result) in enumerate(zip(chosen, results, strict=True)):
        axis = axes[position % rows, position // rows]
        axis.imshow(result.picture or picture.image)
        copies = f"{picture.copies} copies" if picture.copies != 1 else "1 copy"
        axis.text(
            -6,
            16,
            f"{'held out' if picture.copies == 0 else copies}\n{result.verdict}",
            ha="right",
            va="center",
            color=COLOURS[result.verdict],
        )
    return figure
