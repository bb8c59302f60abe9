"""A set of results in a few numbers."""

import math
import statistics
from collections.abc import Sequence

from invmm_eval.search.result import Result, Status


def summarize(results: Sequence[Result]) -> dict[str, float | int | None]:
    """Summarize results; fractions and medians are over the images that did not fail.

    ``median_invmm`` is infinite unless more than half of the images were replicated, and None if all failed.
    """
    measured = [result for result in results if result.status is not Status.FAILED]
    replicated = [result.invmm for result in measured if result.status is Status.REPLICATED]
    return {
        "images": len(results),
        "replicated": len(replicated),
        "failed": len(results) - len(measured),
        "replicated_fraction": len(replicated) / len(measured) if measured else None,
        "median_invmm": statistics.median(result.invmm for result in measured) if measured else None,
        "smallest_invmm": min(replicated, default=math.inf) if measured else None,
    }
