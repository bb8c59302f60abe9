"""The sentences about an audit of a whole set."""

from collections.abc import Iterator

from invmm_eval.audits.whole.agenda import End
from invmm_eval.audits.whole.found import WholeSet
from invmm_eval.reports.numbers import are, pictures
from invmm_eval.statistics.binomial import CONFIDENCE, percent


def sentences(whole: WholeSet) -> Iterator[str]:
    """What was found, what is left open, what the screen missed, and what it cost."""
    design, control, missed = whole.design, len(whole.control), len(whole.missed)
    found = len(whole.found) + missed
    drawn = f", and {missed:,} of the {control:,} drawn at random from the others" if control else ""
    yield (
        f"{found:,} of {pictures(design.pictures)} {are(found)} memorized: {len(whole.found):,} of the "
        f"{len(design.suspects):,} most suspicious{drawn}."
    )
    if whole.not_searched:
        yield _left_open(whole)
    if control:
        bound = (
            f" At most {percent(whole.most_missed)} of all memorized pictures are" if whole.most_missed else " None is"
        )
        yield (
            f"The screen's miss rate: {missed:,} of {control:,} pictures drawn at random behind the suspects "
            f"{are(missed)} memorized.{bound} behind the suspects ({percent(CONFIDENCE)} confidence)."
        )
    yield {
        End.CLEAN: f"No more suspects were searched, since {design.clean:,} in a row are not memorized.",
        End.BUDGET: "No more suspects were searched, since the budget was spent.",
        End.ALL: "All pictures were searched.",
    }[End(design.end)]
    cost = f"This took {whole.rows:,} network rows, {design.screen_rows:,} of them for the screen"
    yield cost + (f"; to search all takes about {whole.rows_of_all:,}." if whole.rows_of_all else ".")
    if whole.failed:
        yield f"{pictures(whole.failed)} could not be searched: nothing is known about them."
    if design.unreadable:
        yield f"{design.unreadable:,} of {design.images:,} images could not be read or scored."


def _left_open(whole: WholeSet) -> str:
    if not whole.control:
        return (
            f"Nothing is known about the {whole.not_searched:,} pictures that were not searched: no sample was drawn."
        )
    most = whole.most_not_searched
    return (
        f"Of the {pictures(whole.not_searched)} that were not searched, "
        f"{f'at most {most:,} {are(most)}' if most else 'none is'} memorized ({percent(CONFIDENCE)} confidence, exact "
        "limit)."
    )
