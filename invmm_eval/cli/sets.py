"""Commands for whole sets: rank all images, and audit the set in two phases."""

from heapq import nsmallest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from invmm_eval.audits.options import SCREEN_OPTIONS, SET_OPTIONS
from invmm_eval.cli.console import err, hide_library_bars, out, say
from invmm_eval.cli.ending import SHOWN
from invmm_eval.cli.measure import MODEL, Captions, DryRun, Images, More, OutFolder, named, of_this_process, print_price
from invmm_eval.cli.options import read_options, with_flags

if TYPE_CHECKING:
    from invmm_eval.audits.request import Request
    from invmm_eval.audits.whole.found import WholeSet

_NEXT = "When all shards are, put them together with invmm-eval merge, and audit the merged folder without --shard."
MOST_SUSPICIOUS = 20
"""Number of images in the table of a screening."""


@with_flags(SCREEN_OPTIONS)
def screen(
    model: Annotated[str, typer.Option(metavar="MODEL", help=MODEL)],
    images: Images,
    out_folder: OutFolder,
    more: More = [],  # noqa: B006
    captions: Captions = None,
    dry_run: DryRun = False,
    **options: Any,
) -> None:
    """Rank a set of images by how likely a search is to find them memorized. It searches none of them."""
    say(f"Ranking {named([*images, *more])} by how well {model} restores them; scores go to {out_folder}.", err)
    from invmm_eval.audits.progress import Bar
    from invmm_eval.audits.request import Request
    from invmm_eval.audits.whole.screening import ranked, scored, write_ranking

    values, leads = of_this_process(read_options(options))
    request = Request.of(model, [*images, *more], captions, names=SCREEN_OPTIONS, **values)
    hide_library_bars()
    if dry_run:
        print_price(request, screens=True, searches=False)
        return
    with Bar(request.expected if leads else 0, shown=leads) as bar:
        scores = ranked(bar.over(scored(request, out=out_folder)))
    if not leads:
        return
    from invmm_eval.reports.terminal import scores_table

    out.print(scores_table(scores[:MOST_SUSPICIOUS]))
    path = write_ranking(scores, out_folder)
    failed = sum(score.score is None for score in scores)
    say(
        f"These are the {min(MOST_SUSPICIOUS, len(scores)):,} most suspicious of {len(scores):,} images; {failed:,} "
        f"failed. The whole ranking: {path}"
    )
    say("A score proves nothing. To search the suspicious ones, run invmm-eval audit with the same options.")


@with_flags(SET_OPTIONS)
def audit(
    model: Annotated[str, typer.Option(metavar="MODEL", help=MODEL)],
    images: Images,
    out_folder: OutFolder,
    more: More = [],  # noqa: B006
    captions: Captions = None,
    dry_run: DryRun = False,
    **options: Any,
) -> None:
    """Find the images of a set that a model memorized, and bound the number of those that were not searched.

    All images are ranked, the most suspicious searched in order, and a random sample of the others.
    """
    say(f"Auditing {model} for {named([*images, *more])}; results go to {out_folder}.", err)
    from invmm_eval.audits.request import Request

    values, leads = of_this_process(read_options(options))
    request = Request.of(model, [*images, *more], captions, names=SET_OPTIONS, **values)
    hide_library_bars()
    if dry_run:
        print_price(request, screens=True)
        return
    whole = audit_with_bars(request, out_folder, shown=leads)
    if whole is None:
        if leads:
            say(f"Shard {request.output.shard} is ranked; results are in {out_folder}. {_NEXT}")
        return
    from invmm_eval.reports.terminal import ResultsTable
    from invmm_eval.reports.whole import sentences
    from invmm_eval.search.result import rank

    out.print(ResultsTable(nsmallest(SHOWN, whole.by_index.values(), key=rank)))
    for sentence in sentences(whole):
        say(sentence)
    say(f"Results are in {out_folder}. To write a report: invmm-eval report {out_folder}")


def audit_with_bars(request: "Request", folder: Path, *, shown: bool = True) -> "WholeSet | None":
    """Audit a whole set, with a progress bar for its screen and one for its searches.

    Args:
        request: What is audited, and how.
        folder: Output folder.
        shown: Whether this process shows the bars.
    """
    from invmm_eval.audits.progress import Bar
    from invmm_eval.audits.whole.audit import audited

    with Bar(request.expected if shown else 0, shown=shown) as screening, Bar(0, shown=shown) as searching:
        return audited(
            request,
            folder,
            on_step=searching.on_step,
            on_extent=searching.resize,
            over_scores=screening.over,
            over_results=searching.over,
        )
