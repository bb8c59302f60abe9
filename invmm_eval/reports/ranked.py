"""The results of an audit in the order of their rank. Memory holds their order; each is read when it is looked at."""

from array import array
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from typing import Self, overload

import numpy as np
from numpy.typing import NDArray

from invmm_eval.audits.folder import Record
from invmm_eval.search.fields import fields
from invmm_eval.search.result import Result, rank


class Ranked(Sequence[Result]):
    """The results of an audit, the most memorized first: all are read once to be ranked, and then when looked at.

    Args:
        record: The content of the folder.

    Attributes:
        keys: Their sort keys ``(n, 5)`` as :func:`~invmm_eval.search.result.rank` makes them, in their order.
        examples: A few results, which together have every field and every value that any of them has.
        rows: The network rows spent on them.
        seconds: The seconds spent on them.
    """

    def __init__(self, record: Record) -> None:
        self._record = record
        self._changes: tuple[Callable[[Result], Result], ...] = ()
        self.examples: Sequence[Result] = []
        self.rows, self.seconds = 0, 0.0
        keys, known = array("d"), set[tuple[str, bool]]()
        for result in record.results():
            keys.extend(rank(result))
            self.rows += result.rows or 0
            self.seconds += result.seconds_steps + result.seconds_checks
            if not known.issuperset(held := _held(result)):
                known |= held
                self.examples.append(result)
        unsorted = np.array(keys).reshape(-1, 5)
        self._order = np.lexsort(unsorted.T[::-1])
        self.keys: NDArray[np.float64] = unsorted[self._order]

    def changed(self, change: Callable[[Result], Result]) -> Self:
        """The same with something changed in each result, but for what decides its rank and which fields it has."""
        other = copy(self)
        other._changes = (*self._changes, change)
        other.examples = [*map(change, self.examples)]
        return other

    @overload
    def __getitem__(self, at: int) -> Result: ...

    @overload
    def __getitem__(self, at: slice) -> Self: ...

    def __getitem__(self, at: int | slice) -> Result | Self:
        if isinstance(at, slice):
            part = copy(self)
            part._order, part.keys = self._order[at], self.keys[at]
            return part
        result = self._record.result(self._record.rows[self._order[at]])
        for change in self._changes:
            result = change(result)
        return result

    def __iter__(self) -> Iterator[Result]:
        return map(self.__getitem__, range(len(self)))

    def __len__(self) -> int:
        return len(self._order)


def _held(result: Result) -> set[tuple[str, bool]]:
    return {(field.name, field.value(result) is None) for field in fields("table", [result])}
