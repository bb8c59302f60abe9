"""Commands that measure images, rank and audit whole sets, and report their progress."""

import inspect
import logging
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import timedelta
from heapq import nsmallest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from invmm_eval.audits.launched import launched
from invmm_eval.audits.options import OPTIONS, RUN_OPTIONS, SCREEN_OPTIONS, SET_OPTIONS
from invmm_eval.cli.console import err, hide_library_bars, out, say
from invmm_eval.cli.ending import FOUND, SHOWN, FailOn, end, say_price
from invmm_eval.cli.options import Folder, read_options, with_flags
from invmm_eval.errors import InvMMError, on_disk

if TYPE_CHECKING:
    from invmm_eval.audits.request import Request

Model = Annotated[
    str,
    typer.Option(
        metavar="MODEL", help="Folder written by save_pretrained, Hub id, or reference (the model of the demo)."
    ),
]
Captions = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Source of each image's caption: a column of the dataset, or a file suffix such as .txt."
    ),
]
DATASET = "dataset:NAME:SPLIT:COLUMN (SPLIT may be CONFIG/SPLIT; :COLUMN and :SPLIT may be left out)"
Images = Annotated[
    list[str],
    typer.Option(
        metavar="IMAGES",
        help=f"Folder, file, .tar or .parquet, URL such as s3://BUCKET/FOLDER, reference, reference:held-out, or "
        f"{DATASET}; stream: in place of dataset: keeps no copy. Repeatable.",
    ),
]
More = Annotated[list[str], typer.Argument(metavar="MORE", help="More images, as the shell expands --images *.png.")]
OutFolder = Annotated[
    Path, typer.Option("--out", metavar="DIR", help="Output folder. An existing audit in it is resumed.")
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Print the number of images, the rows, time and disk expected; write nothing."),
]
_NEXT = "When all shards are, put them together with invmm-eval merge, and audit the merged folder without --shard."
MOST_SUSPICIOUS = 20
"""Number of images in the table of a screening."""


def measures(
    names: Collection[str], doing: str, **phases: bool
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a function that measures images: it becomes a command, which prints the price with ``--dry-run``.

    The function is called with the request, under torchrun with its ranks as workers; the output folder; whether this
    process leads; and its own parameters.

    Args:
        names: The options that the command has.
        doing: What it does with ``{images}`` and ``{model}``.
        **phases: What is priced, as :func:`~invmm_eval.audits.price.price` takes it.
    """

    def decorate(measure: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(measure).parameters.values())[3:]

        def command(
            model: Model,
            images: Images,
            out_folder: OutFolder,
            more: More = [],  # noqa: B006
            captions: Captions = None,
            dry_run: DryRun = False,
            **options: Any,
        ) -> None:
            ranks, leads = launched()
            if not leads:
                err.quiet = True
                logging.disable(logging.WARNING)
            images = [*images, *more]
            then = "nothing is written" if dry_run else f"results go to {out_folder}"
            say(f"{doing.format(images=named(images), model=model)}; {then}.", err)
            from invmm_eval.audits.request import Request

            given = {parameter.name: options.pop(parameter.name) for parameter in own}
            request = Request.of(model, images, captions, names=names, **read_options(options))
            if ranks > 1:
                if request.resources.workers:
                    raise InvMMError(
                        f"This command already runs as {ranks} processes of a launcher; leave --workers out."
                    )
                request = replace(request, resources=replace(request.resources, workers="ranks"))
            if given.get("fail_on") is FailOn.MEMORIZED:
                request.require_share()
            hide_library_bars()
            if not dry_run:
                measure(request, out_folder, leads, **given)
            elif leads:
                say_price(request, **phases)

        command.__name__, command.__doc__ = measure.__name__, measure.__doc__
        return with_flags(names, own)(command)

    return decorate


@measures(RUN_OPTIONS, "Measuring how much {model} memorized {images}")
def run(
    request: "Request",
    out_folder: Path,
    leads: bool,
    context: typer.Context,
    fail_on: Annotated[
        FailOn | None,
        typer.Option(
            metavar="VERDICT", help=f"memorized or replicated: end with exit code {FOUND} if an image is that."
        ),
    ] = None,
) -> None:
    """Measure how much a model memorized each of a set of images."""
    from invmm_eval.audits.progress import Bar
    from invmm_eval.audits.run import run as results

    with Bar(request.expected) as bar:
        for _ in bar.over(results(request, out=out_folder, on_step=bar.on_step)):
            pass
    if leads:
        end(out_folder, debug=context.find_root().params["debug"], fail_on=fail_on)


@measures(SCREEN_OPTIONS, "Ranking {images} by how likely {model} memorized them", screens=True, searches=False)
def screen(request: "Request", out_folder: Path, leads: bool) -> None:
    """Rank a set of images by how likely a search is to find them memorized. It searches none of them."""
    from invmm_eval.audits.folder.ranking import ranked, require_scored, write_ranking
    from invmm_eval.audits.progress import Bar
    from invmm_eval.audits.whole.screening import scored
    from invmm_eval.reports.numbers import images
    from invmm_eval.reports.terminal import scores_table

    with Bar(request.expected) as bar:
        scores = ranked(bar.over(scored(request, out=out_folder)))
    if not leads:
        return
    out.print(scores_table(scores[:MOST_SUSPICIOUS]))
    path = write_ranking(scores, out_folder)
    failed = sum(score.score is None for score in scores)
    say(
        f"These are the {min(MOST_SUSPICIOUS, len(scores)):,} most suspicious of {images(len(scores))}; {failed:,} "
        f"failed. The whole ranking: {path}"
    )
    require_scored(scores)
    say("A score proves nothing. To search the suspicious ones, run invmm-eval audit with the same options.")


@measures(SET_OPTIONS, "Auditing {model} for {images}", screens=True)
def audit(request: "Request", out_folder: Path, leads: bool) -> None:
    """Find the images of a set that a model memorized, and bound the number of those that were not searched.

    All images are ranked, the most suspicious searched in order, and a random sample of the others.
    """
    from invmm_eval.audits.whole.audit import audited
    from invmm_eval.reports.terminal import ResultsTable
    from invmm_eval.reports.whole import sentences
    from invmm_eval.search.result import rank

    whole = audited(request, out_folder)
    if whole is None:
        if leads:
            say(f"Shard {request.output.shard} is ranked; results are in {out_folder}. {_NEXT}")
        return
    out.print(ResultsTable(nsmallest(SHOWN, whole.by_index.values(), key=rank)))
    for sentence in sentences(whole):
        say(sentence)
    say(f"Results are in {out_folder}. To write a report: invmm-eval report {out_folder}")


@with_flags({"recipe", "settings", "seed", "device", "batch_size"})
def demo(
    out_folder: Annotated[Path, typer.Option("--out", metavar="DIR", help="Output folder.")] = Path("demo"),
    quick: Annotated[bool, typer.Option("--quick", help="Audit 7 images instead of 544.")] = False,
    dry_run: DryRun = False,
    **options: Any,
) -> None:
    """Audit the reference model, for which it is known which images were repeated in training."""
    from invmm_eval.cli.demo import run_demo

    hide_library_bars()
    run_demo(out_folder, quick=quick, dry_run=dry_run, **read_options(options))


@with_flags(OPTIONS.keys() - {"calibration"})
def calibrate(
    model: Model,
    held_out: Annotated[
        list[str],
        typer.Option(
            metavar="IMAGES",
            help=f"Images that the model was not trained on: folder, file, or {DATASET}. Repeatable.",
        ),
    ],
    out_folder: Annotated[
        Path,
        typer.Option("--out", metavar="DIR", help="Output folder of the searches and calibration.json."),
    ],
    rate: Annotated[
        float, typer.Option(metavar="SHARE", help="Share of such images that may count as replicated.")
    ] = 0.05,
    captions: Captions = None,
    dry_run: DryRun = False,
    **options: Any,
) -> None:
    """Set the similarity threshold on held-out images, for a chosen rate of false replicas."""
    then = "nothing is written" if dry_run else f"results go to {out_folder}"
    say(f"Searching {model} for {named(held_out)}, which it must not have seen; {then}.", err)
    from invmm_eval.audits.calibration import FILE, held_out_images
    from invmm_eval.audits.held_out import calibrated, requested
    from invmm_eval.statistics.binomial import CONFIDENCE, percent

    hide_library_bars()
    request = requested(model, held_out, captions, rate, **read_options(options))
    if dry_run:
        say_price(request)
        return
    found = calibrated(request, rate, out=out_folder)
    say(
        f"The threshold is a similarity of {found.threshold:g}. {found.reached:,} of {held_out_images(found.images)} "
        f"reach it; of further images like them at most {percent(found.limit)} do (at {percent(CONFIDENCE)} "
        "confidence)."
    )
    say(f"To use it, run invmm-eval run --calibration {out_folder / FILE} with the same options.")


def named(images: list[str]) -> str:
    """Images as a command names them."""
    return images[0] if len(images) == 1 else f"{images[0]} and {len(images) - 1:,} more"


def status(folder: Folder) -> None:
    """Show the progress of an audit, its rate, and the network rows and the time left."""
    from invmm_eval.audits.folder import read
    from invmm_eval.audits.folder.scores import FILE, read_scores

    if (folder / FILE).exists() and not (folder / "config.json").exists():
        with on_disk(f"{folder} cannot be read"):
            _, scores = read_scores(folder)
        failed = sum(score.score is None for score in scores.values())
        say(f"{len(scores) - failed:,} images have a score, {failed:,} failed; none was searched.")
        return
    audit = read(folder)
    now = audit.progress
    found = ", ".join(f"{number:,} {verdict}" for verdict, number in now.counts.items())
    say(f"{now.done:,} of {now.images:,} images are done: {found}, {now.waiting:,} waiting.")
    if now.waiting and "control" in audit.request:
        say("These are the images of the set that are certain to be searched; others may follow.")
    if now.spent:
        ahead = f", about {now.ahead:,} left" if now.ahead else ""
        say(f"Network rows: {now.spent:,} spent{ahead}.")
    rate = "" if now.rate is None else f" at {3600 * now.rate:,.1f} images an hour"
    left = "" if now.left is None or not now.waiting else f"; {timedelta(seconds=round(now.left.total_seconds()))} left"
    if now.running:
        say(f"The audit is running{rate}{left}.")
    elif now.waiting or now.failed:
        say(f"The audit is not running{rate and f'; it ran{rate}'}{left}. Run the same command again to resume.")
