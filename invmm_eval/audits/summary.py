"""A set of results in a few numbers."""

import math
import statistics
from collections import Counter
from collections.abc import Sequence

from invmm_eval.search.result import Result, Status
from invmm_eval.search.status import Verdict


def count(results: Sequence[Result]) -> dict[Verdict, int]:
    """The number of results of each verdict, zeros included: together all images, the one denominator of summaries."""
    counts = Counter(result.verdict for result in results)
    return {verdict: counts[verdict] for verdict in Verdict}


def summarize(results: Sequence[Result]) -> dict[str, float | int | None]:
    """Summarize results; fractions are of all images, and None if none was measured.

    ``replicated`` counts the images that passed a check, whatever their verdict. ``median_invmm`` is over the images
    that did not fail: infinite unless more than half of them passed a check, and None if all failed.
    """
    counts = count(results)
    measured = [result for result in results if result.status is not Status.FAILED]
    replicated = [result.invmm for result in measured if result.status is Status.REPLICATED]
    return {
        "images": len(results),
        "memorized": counts[Verdict.MEMORIZED],
        "replicable": counts[Verdict.REPLICABLE],
        "not_replicated": counts[Verdict.NOT_REPLICATED],
        "failed": counts[Verdict.FAILED],
        "memorized_fraction": counts[Verdict.MEMORIZED] / len(results) if measured else None,
        "replicated": len(replicated),
        "replicated_fraction": len(replicated) / len(results) if measured else None,
        "median_invmm": statistics.median(result.invmm for result in measured) if measured else None,
        "smallest_invmm": min(replicated, default=math.inf) if measured else None,
    }
