"""The command that answers a question about one image."""

import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from invmm_eval.audits.options import OPTIONS
from invmm_eval.cli.console import err, hide_library_bars, say
from invmm_eval.cli.ending import say_price
from invmm_eval.cli.measure import DryRun, Model
from invmm_eval.cli.options import read_options, with_flags
from invmm_eval.errors import InvMMError, on_disk

CHECK_OPTIONS = {name: option for name, option in OPTIONS.items() if name not in ("workers", "batch_size")}


@with_flags(CHECK_OPTIONS)
def check(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="File of the image.")],
    model: Model,
    caption: Annotated[
        str | None, typer.Option(metavar="TEXT", help="The image's caption, for a model that takes one.")
    ] = None,
    out_file: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Page of HTML to write, which a browser prints on paper or as PDF."),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--audit", metavar="DIR", help="Folder of the search, resumed if it exists. By default check-MODEL."
        ),
    ] = None,
    dry_run: DryRun = False,
    **options: Any,
) -> None:
    """Answer whether a model memorized one image: screen it, search it, and say what was found."""
    from invmm_eval.audits.folder.files import write_to
    from invmm_eval.audits.options import Screen
    from invmm_eval.audits.plan import load
    from invmm_eval.audits.progress import Bar
    from invmm_eval.audits.request import Request
    from invmm_eval.audits.run import run
    from invmm_eval.audits.whole.screening import scored
    from invmm_eval.reports.answer.page import write_page
    from invmm_eval.reports.answer.words import Answer
    from invmm_eval.reports.findings import find
    from invmm_eval.search.status import Verdict

    if out_file and out_file.suffix.lower() != ".html":
        raise InvMMError(f"{out_file} does not end in .html; a page is written, which a browser prints as PDF.")
    folder = folder or Path("check-" + re.sub(r"[^\w.-]+", "-", Path(model).name))
    then = "nothing is written" if dry_run else f"the search is kept in {folder}"
    say(f"Checking whether {model} memorized {image}; {then}.", err)
    hide_library_bars()
    captions = caption if caption is None else [caption]
    request = Request.of(model, [image], captions, names=CHECK_OPTIONS, **read_options(options))
    request = replace(request, screen=Screen(detector="mirrored-loss"))
    if len(request.sources) != 1:
        raise InvMMError(f"{image} names {len(request.sources):,} images; check takes one, invmm-eval run many.")
    if dry_run:
        say_price(request, screens=True)
        return
    backbone = load(request.model, request.resources.device)
    [score] = scored(request, out=folder, backbone=backbone)
    with Bar(1) as bar:
        for _ in bar.over(run(request, out=folder, backbone=backbone, on_step=bar.on_step)):
            pass
    answer = Answer(find(folder).public(names=True), score)  # it is sent to others: no local paths
    for text in (answer.short, *answer.paragraphs):
        say(text)
    if answer.shown:
        say(f"The image beside its samples: {answer.findings.picture(answer.result)}")
    if out_file:
        with on_disk(f"{out_file} cannot be written"):
            write_to(out_file, partial(write_page, answer))
        say(f"Wrote {out_file}.")
    if answer.result.verdict is Verdict.FAILED:
        raise typer.Exit(1)
