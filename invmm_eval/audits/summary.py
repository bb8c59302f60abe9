"""A set of results in a few numbers."""

import logging
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence

from invmm_eval.search.result import Result, Status
from invmm_eval.search.status import Verdict

NO_SHARE = (
    "The share of plain samples that are copies was not estimated, so no image can be said to be memorized; the recipe "
    "fast estimates it, and so does confirm=100."
)
_log = logging.getLogger(__name__)


def count(results: Sequence[Result]) -> dict[Verdict, int]:
    """The number of results of each verdict, zeros included: together all images, the one denominator of summaries."""
    counts = Counter(result.verdict for result in results)
    return {verdict: counts[verdict] for verdict in Verdict}


def share_is_known(results: Iterable[Result]) -> bool:
    """Whether the share of plain samples that are copies was estimated for any image."""
    return any(result.plain_share or result.confirmed for result in results)


def summarize(results: Sequence[Result]) -> dict[str, float | int | None]:
    """Summarize results; fractions are of all images, and None if none was measured.

    ``memorized_fraction`` is None, with a warning, if no share of plain samples was estimated: then none can be said to
    be memorized (:func:`share_is_known`).
    ``replicated`` counts the images that passed a check, whatever their verdict. ``median_invmm`` is over the images
    that did not fail: infinite unless more than half of them passed a check, and None if all failed.
    """
    counts = count(results)
    measured = [result for result in results if result.status is not Status.FAILED]
    known = share_is_known(results)
    if measured and not known:
        _log.warning(NO_SHARE)
    replicated = [result.invmm for result in measured if result.status is Status.REPLICATED]
    return {
        "images": len(results),
        "memorized": counts[Verdict.MEMORIZED],
        "replicable": counts[Verdict.REPLICABLE],
        "not_replicated": counts[Verdict.NOT_REPLICATED],
        "failed": counts[Verdict.FAILED],
        "memorized_fraction": counts[Verdict.MEMORIZED] / len(results) if known else None,
        "replicated": len(replicated),
        "replicated_fraction": len(replicated) / len(results) if measured else None,
        "median_invmm": statistics.median(result.invmm for result in measured) if measured else None,
        "smallest_invmm": min(replicated, default=math.inf) if measured else None,
    }
