"""The results of an audit: a list, what they come to in a few numbers, and their table."""

import logging
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from invmm_eval.audits.folder import read
from invmm_eval.search.fields import Field, columns, finite
from invmm_eval.search.result import Result, Status, rank
from invmm_eval.search.status import Verdict

if TYPE_CHECKING:
    import pandas

NO_SHARE = (
    "The share of plain samples that are copies was not estimated, so no image can be said to be memorized; the recipe "
    "fast estimates it, and so does the setting confirm=100."
)
_SHOWN = 20
"""Maximum number of results that a notebook shows."""
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


def table(results: Sequence[Result], fields: Sequence[Field]) -> pa.Table:
    """One row per result, one column per field; values that are infinite or not a number are null."""
    return pa.table({f.name: pa.array([finite(f.value(result)) for result in results], f.type) for f in fields})


class Results(list[Result]):
    """A list of one result per image, with what they come to. A notebook shows the most memorized first.

    Columns of :meth:`table` and :meth:`to_pandas`, with one for each value of a plugin's estimator:

    {columns}
    """

    @property
    def summary(self) -> dict[str, float | int | None]:
        """The number of images, those of each verdict, and their values (:func:`summarize`)."""
        return summarize(self)

    def table(self) -> pa.Table:
        """One row per result, with the columns of the data set; values that are infinite or not a number are null."""
        return table(self, columns("dataset", self))

    def to_pandas(self) -> "pandas.DataFrame":
        """The :meth:`table` as a data frame."""
        frame: pandas.DataFrame = self.table().to_pandas()
        return frame

    def __repr__(self) -> str:
        return "\n".join([self._title(), *(f"  {result!r}" for result in sorted(self, key=rank)[:_SHOWN])])

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        shown = sorted(self, key=rank)[:_SHOWN]
        return f"<p><b>{escape(self._title())}</b></p>{''.join(result._repr_html_() for result in shown)}"

    def _title(self) -> str:
        counts = ", ".join(f"{number:,} {verdict}" for verdict, number in count(self).items())
        images = "1 image" if len(self) == 1 else f"{len(self):,} images"
        rest = f"; {len(self) - _SHOWN:,} more are not shown" if len(self) > _SHOWN else ""
        return f"{images}: {counts}{rest}"


Results.__doc__ = (Results.__doc__ or "").replace(
    "{columns}", "\n    ".join(f"- ``{column.name}``: {column.description}" for column in columns("dataset"))
)


def read_audit(folder: str | Path) -> Results:
    """Read the results of an audit from its folder, as :func:`invmm_eval.audit` returned them.

    They are those of the images that were requested last, in their order. Tensors, samples and how a search went are
    read when they are looked at.

    Args:
        folder: The folder of an audit, which may be running.

    Raises:
        InvMMError: There is no audit in the folder, or it is damaged.
    """
    return Results(read(folder).results())
