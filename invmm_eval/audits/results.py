"""The results of an audit: a list, its summary and its table."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

import pyarrow as pa

from invmm_eval.audits.summary import count, summarize
from invmm_eval.search.fields import Field, columns, finite
from invmm_eval.search.result import Result, rank

if TYPE_CHECKING:
    import pandas

_SHOWN = 20
"""Maximum number of results that a notebook shows."""


def table(results: Sequence[Result], fields: Sequence[Field]) -> pa.Table:
    """One row per result, one column per field; values that are infinite or not a number are null."""
    return pa.table({f.name: pa.array([finite(f.value(result)) for result in results], f.type) for f in fields})


class Results(list[Result]):
    """A list of results with what they come to. A notebook shows the most memorized first, with their samples.

    Args:
        results: One result per image.
    """

    def __init__(self, results: Iterable[Result] = ()) -> None:
        super().__init__(results)

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
