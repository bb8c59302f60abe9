"""Commands that measure images, and tell how far they are."""

import logging
from datetime import timedelta
from heapq import nsmallest
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from invmm_eval.audits.options import OPTIONS
from invmm_eval.cli.console import err, hide_library_bars, out, print_error
from invmm_eval.cli.options import read_options, with_flags
from invmm_eval.errors import InvMMError

SHOWN = 100
"""Maximum number of images in the table at the end of a run."""

MODEL = "Folder written by save_pretrained, Hub id, or reference (the model of the demo)."
Captions = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Source of each image's caption: a column of the dataset, or a file suffix such as .txt."
    ),
]


@with_flags()
def run(
    context: typer.Context,
    model: Annotated[str, typer.Option(metavar="MODEL", help=MODEL)],
    images: Annotated[
        list[str],
        typer.Option(
            metavar="IMAGES",
            help="Folder, file, dataset:NAME[:split[:column]], reference or reference:held-out. Repeatable.",
        ),
    ],
    out_folder: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Output folder. An existing audit in it is resumed.")
    ],
    more: Annotated[
        list[str], typer.Argument(metavar="IMAGES", help="More images, as the shell expands --images *.png.")
    ] = [],  # noqa: B006
    captions: Captions = None,
    **options: Any,
) -> None:
    """Measure how much a model memorized each of a set of images."""
    from invmm_eval.audits.request import Request
    from invmm_eval.audits.run import run as measure
    from invmm_eval.audits.workers import launched
    from invmm_eval.cli.progress import Bar

    values = read_options(options)
    ranks, leads = launched()
    if not leads:
        err.quiet = True
        logging.disable(logging.WARNING)
    if ranks > 1 and values["workers"]:
        raise InvMMError(f"This command already runs as {ranks} processes of a launcher; leave --workers out.")
    if ranks > 1:
        values["workers"] = "ranks"
    request = Request.of(model, [*images, *more], captions, **values)
    hide_library_bars()
    with Bar(len(request.sources) if leads else 0, err) as bar:
        for _ in bar.over(measure(request, out=out_folder, on_step=bar.on_step)):
            pass
    if leads:
        summarize(out_folder, debug=context.find_root().params["debug"])


def summarize(folder: Path, *, debug: bool) -> None:
    """Print what an audit found, with ``debug`` the first traceback, and the next command.

    Raises:
        typer.Exit: All images failed.
    """
    from invmm_eval.audits.folder import read
    from invmm_eval.reports.failures import by_reason, in_one_sentence, listed
    from invmm_eval.reports.terminal import ResultsTable
    from invmm_eval.reports.wording import population_limit
    from invmm_eval.search.result import rank

    audit = read(folder)
    progress = audit.progress
    shown = nsmallest(SHOWN, map(audit.result, audit.rows), key=rank)
    descriptions = audit.config.get("estimators", {})
    out.print(ResultsTable(shown, describe=lambda name: descriptions.get(name, {})))
    if len(audit.rows) > SHOWN:
        typer.echo(f"These are the {SHOWN} most memorized of {len(audit.rows):,} images.")
    typer.echo(f"{progress.replicated:,} of {progress.images:,} images were replicated; {progress.failed:,} failed.")
    failures = by_reason(audit.rows)
    if progress.done:
        for line in (*listed(failures), population_limit(progress.replicated, progress.done)):
            typer.echo(line)
    typer.echo(f"Results are in {folder}. To write a report: invmm-eval report {folder}")
    tracebacks = [row["traceback"] for group in failures for row in group if row.get("traceback")]
    if tracebacks and debug:
        err.print(Text(tracebacks[0]), soft_wrap=True)
    elif tracebacks:
        hint = f"Tracebacks are in {folder / 'results.jsonl'}; with --debug the same command prints the first one."
        err.print(Text(hint), soft_wrap=True)
    if failures and not progress.done:
        print_error(in_one_sentence(failures))
        raise typer.Exit(1)


@with_flags(OPTIONS.keys() - {"calibration"})
def calibrate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL)],
    held_out: Annotated[
        list[str],
        typer.Option(
            metavar="IMAGES",
            help="Images that the model was not trained on: folder, file, or dataset:NAME[:split[:column]]. "
            "Repeatable.",
        ),
    ],
    out_folder: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Output folder of the searches and of calibration.json.")
    ],
    rate: Annotated[float, typer.Option(help="Share of such images that may count as replicated.")] = 0.05,
    captions: Captions = None,
    **options: Any,
) -> None:
    """Set the similarity threshold on held-out images, for a chosen rate of false replicas."""
    from invmm_eval.audits.calibration import FILE
    from invmm_eval.audits.held_out import calibrate as find
    from invmm_eval.audits.images import find_images
    from invmm_eval.cli.progress import Bar
    from invmm_eval.statistics.binomial import CONFIDENCE, percent

    values = read_options(options)
    images = len(find_images(*held_out, captions=captions))
    hide_library_bars()
    with Bar(images, err) as bar:
        found = find(
            model,
            held_out,
            rate=rate,
            captions=captions,
            out=out_folder,
            on_step=bar.on_step,
            over=bar.over,
            **values,
        )
    typer.echo(
        f"The threshold is a similarity of {found.threshold:g}. {found.reached:,} of {found.images:,} held-out images "
        f"reach it; of further images like them at most {percent(found.limit)} do (at {percent(CONFIDENCE)} "
        "confidence)."
    )
    typer.echo(f"To use it, run invmm-eval run --calibration {out_folder / FILE} with the same options.")


def status(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Output folder of an audit.")],
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every tensor file and compare its SHA-256 with the recorded one.")
    ] = False,
) -> None:
    """Show the progress of an audit, its rate and the time left."""
    from invmm_eval.audits.folder import read

    audit = read(folder)
    now = audit.progress
    typer.echo(
        f"{now.done:,} of {now.images:,} images are done: {now.replicated:,} replicated, {now.exhausted:,} not "
        f"replicated. {now.failed:,} failed, {now.waiting:,} waiting."
    )
    rate = "" if now.rate is None else f" at {3600 * now.rate:,.1f} images an hour"
    left = "" if now.left is None or not now.waiting else f"; {timedelta(seconds=round(now.left.total_seconds()))} left"
    if now.running:
        typer.echo(f"The audit is running{rate}{left}.")
    elif now.waiting or now.failed:
        typer.echo(f"The audit is not running{rate and f'; it ran{rate}'}{left}. Run the same command again to resume.")
    if verify:
        damaged = list(audit.damaged())
        for sentence in damaged:
            err.print(Text(sentence), soft_wrap=True)
        typer.echo(f"Damaged tensor files: {len(damaged)}.")
        raise typer.Exit(bool(damaged))


@with_flags({"recipe", "settings", "seed", "device", "batch_size"}, recipe="demo")
def demo(
    out_folder: Annotated[Path, typer.Option("--out", metavar="DIR", help="Output folder.")] = Path("demo"),
    quick: Annotated[
        bool, typer.Option("--quick", help="Audit 6 pictures instead of 21, with at most 50 steps.")
    ] = False,
    **options: Any,
) -> None:
    """Audit the reference model, for which it is known which images were repeated in training."""
    from invmm_eval.cli.demo import run_demo

    hide_library_bars()
    run_demo(out_folder, quick=quick, **read_options(options))
