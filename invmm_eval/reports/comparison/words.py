"""The sentences about a comparison."""

import math
from collections.abc import Iterator

from invmm_eval.reports.comparison.pairs import Change, Comparison, Pair
from invmm_eval.reports.numbers import are, have, images
from invmm_eval.search.fields import number
from invmm_eval.search.status import RAREST

LIMITS = (
    "That an image is no longer memorized means that this search finds fewer copies of it. It does not prove that the "
    "model lost it: another prompt, another search or further training may bring it back.",
    "Images that were chosen because audit A found them tend to look less memorized in any second audit. Compare "
    "images that were chosen before A was read.",
    "The tests take images to be independent of each other. Near twins are not.",
    "The interval of a change runs between the ends of two intervals of 95 %: it holds in at least 90 % of cases.",
)

RAREST_COPIES = f"1 copy in {1 / RAREST:,.0f} plain samples"


def paragraphs(comparison: Comparison) -> Iterator[str]:
    """The facts behind the headline: how much shares changed, both tests, and what was left out."""
    if comparison.measured:
        yield from _size(comparison)
        yield from _tests(comparison)
    if failed := len(comparison.of(Change.FAILED)):
        yield f"{images(failed)} failed in at least one audit: nothing is known about a change."
    for change, here, there in ((Change.ONLY_A, "A", "B"), (Change.ONLY_B, "B", "A")):
        if count := len(comparison.of(change)):
            yield (
                f"{images(count)} {have(count)} a result in audit {here} only and {are(count)} not compared: audit "
                f"{there} did not search {'it' if count == 1 else 'them'}."
            )
    if missing := len(comparison.measured) - len(comparison.valued):
        yield f"{images(missing)} {have(missing)} no share in at least one audit: only verdicts are compared."


def _size(comparison: Comparison) -> Iterator[str]:
    changed = comparison.became + comparison.freed
    clear = sum(pair.is_clear for pair in changed)
    if changed and comparison.word == "memorized":
        yield (
            f"{clear:,} of the {len(changed):,} changes of verdict {are(clear)} clear: the intervals of both shares do "
            "not overlap." + (" Of the others they overlap, or one has no upper limit." if clear < len(changed) else "")
        )
    if comparison.typical is not None:
        both = len(comparison.copied)
        copies = f"more than {RAREST_COPIES}" if comparison.word == "memorized" else "copies"
        yield (
            f"{images(both)} {have(both)} {copies} in both audits. Their distance from plain noise "
            f"changed by {signed(comparison.typical)} nats (median)"
            + (f": copies are {_factor(comparison.typical)}." if comparison.word == "memorized" else ".")
        )


def _tests(comparison: Comparison) -> Iterator[str]:
    sides, ranks = comparison.sides, comparison.ranks
    became, freed = len(comparison.became), len(comparison.freed)
    if sides.changes:
        yield (
            f"Verdicts: {became:,} became {comparison.word}, {freed:,} no longer {are(freed)}. If both were "
            f"equally likely, a split at least this uneven would have {probability(sides.p)} (McNemar's exact test, "
            "two-sided)."
        )
    else:
        yield "Verdicts: none changed."
    if ranks.changes:
        value, rule = "nats", "no copy counts as the largest distance"
        if comparison.word == "memorized":
            value, rule = (
                "-ln(share)",
                f"no copy and rarer ones, whose share is estimated too low, count as {RAREST_COPIES}",
            )
        yield (
            f"Distances: {ranks.changes:,} of {images(len(comparison.valued))} changed. If increases and "
            f"decreases were alike in number and size, a difference at least this clear would have "
            f"{probability(ranks.p)} (Wilcoxon's signed-rank test on {value}, two-sided; {rule})."
        )
    else:
        yield "Distances: none changed."


def probability(p: float) -> str:
    """A p-value in words."""
    return "a probability below 0.0001" if p < 1e-4 else f"a probability of {p:.2g}"


def signed(value: float) -> str:
    """A change with its sign."""
    if not value:
        return "0"
    return f"{'+' if value > 0 else '-'}{number(abs(value))}"


def change_text(pair: Pair) -> tuple[str, str]:
    """The change of the distance of an image, and its interval, for people; ``-`` and empty where there is none."""
    if pair.nats_change is None:
        return "-", ""
    ends = pair.nats_ends
    if ends is None or not any(map(math.isfinite, ends)):
        return signed(pair.nats_change), ""
    if not math.isfinite(ends[1]):
        return signed(pair.nats_change), f"at least {signed(ends[0])}"
    if not math.isfinite(ends[0]):
        return signed(pair.nats_change), f"at most {signed(ends[1])}"
    return signed(pair.nats_change), f"{signed(ends[0])} to {signed(ends[1])}"


def _factor(nats: float) -> str:
    times = number(float(f"{math.exp(min(abs(nats), 700)):.3g}"))
    if times == "1":
        return "as frequent as before"
    return f"{times} times {'as rare' if nats > 0 else 'as frequent'} as before"
