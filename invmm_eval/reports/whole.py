"""The sentences about an audit of a whole set, whose images all counts are out of."""

from collections.abc import Iterator

from invmm_eval.audits.whole.agenda import End
from invmm_eval.audits.whole.found import WholeSet
from invmm_eval.reports.numbers import are, images
from invmm_eval.statistics.binomial import CONFIDENCE, percent


def found_of(whole: WholeSet) -> str:
    """How many images are memorized: ``At least 9 of 544 images are``, without ``at least`` if all were searched."""
    found = len(whole.found) + len(whole.missed)
    known = f"{found:,} of {images(whole.design.pictures)} {are(found)}"
    if not (whole.not_searched or whole.failed):
        return known
    searched = len(whole.suspects) + len(whole.control)
    return (
        f"At least {known}" if found else f"None of the {images(searched)} searched, of {whole.design.pictures:,}, is"
    )


def sentences(whole: WholeSet) -> Iterator[str]:
    """What was found, what is left open, why the search ended and what it cost, and what failed."""
    design, control = whole.design, len(whole.control)
    yield f"{found_of(whole)} memorized."
    if whole.not_searched or control:
        found, missed = len(whole.found), len(whole.missed)
        drawn = f", and {missed:,} of the {control:,} drawn at random from the others" if control else ""
        yield (
            f"{found:,} of the {len(design.suspects):,} most suspicious images {are(found)} memorized{drawn}."
            if design.suspects
            else f"{missed:,} of the {images(control)} drawn at random {are(missed)} memorized."
        )
    if whole.not_searched:
        yield _left_open(whole)
    ended = {
        End.CLEAN: f"No more suspects were searched, since {design.clean:,} in a row are not memorized.",
        End.BUDGET: f"No {'more ' * bool(design.suspects)}suspects were searched, since the budget was spent.",
        End.ALL: "All images were searched.",
    }[End(design.end)]
    left = whole.not_searched and whole.rows_of_all
    of_all = f"; to search all would take about {float(f'{left:.3g}'):,.0f}" if left else ""
    yield (
        f"{ended} This took {whole.rows:,} network rows, {design.screen_rows:,} of them for the screen{of_all}. "
        "What all images share, such as plain samples of the model, is not counted."
    )
    if whole.failed:
        them = "it" if whole.failed == 1 else "them"
        yield f"{images(whole.failed)} could not be searched: nothing is known about {them}."
    if design.unreadable:
        yield f"{design.unreadable:,} of {design.images:,} images could not be read or scored."
    if equal := design.images - design.unreadable - design.pictures:
        yield f"{equal:,} of {design.images:,} images {are(equal)} equal to others: equal ones count once."


def _left_open(whole: WholeSet) -> str:
    if not whole.control:
        return f"Nothing is known about the {whole.not_searched:,} images that were not searched: no sample was drawn."
    most, missed = whole.most_not_searched, percent(whole.most_missed)
    bound = f"at most {most:,} {are(most)} memorized" if most else "none is memorized"
    if most and whole.found:
        bound += f". The screen missed at most {missed} of all memorized images"
    return f"Of the {images(whole.not_searched)} that were not searched, {bound} ({percent(CONFIDENCE)} confidence)."
