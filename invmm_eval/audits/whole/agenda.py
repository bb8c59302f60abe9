"""Which image is searched next.

Images are searched in the order of their suspicion, until ``clean`` in a row are not memorized or the budget is spent:
these are the suspects. The control sample is the first ``control`` images of a random order that are no suspects. The
random order is fixed before anything is searched, and which images are suspects depends on the searches of suspects
alone, so the control sample is a simple random one of all others.

Both sets depend on the results only, not on what is searched at the same time, nor on interruptions; what was a suspect
stays one if the audit is resumed with a smaller budget. An image is given out only if it is certain to belong to one of
them: a suspect that the results under way cannot exclude any more, or one of the first images of the random order,
which is either a suspect or in the sample. So no search is for nothing.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain, islice
from statistics import fmean


class End(StrEnum):
    """Why no further suspects are searched."""

    CLEAN = "clean"
    """As many as required in a row are not memorized."""
    BUDGET = "budget"
    """The budget is spent."""
    ALL = "all"
    """All images are searched."""


@dataclass(frozen=True)
class Outcome:
    """The search of one image: whether it is memorized, None if that failed, and what the search cost."""

    memorized: bool | None
    cost: float


class Agenda(Iterator[int]):
    """The images to search, by their number. It may be exhausted for the moment, until outcomes are recorded.

    Args:
        order: All images, the most suspicious first.
        shuffled: The same in random order.
        control: Number of images of the control sample.
        clean: Number of images in a row that end the search of suspects.
        budget: What all of the audit may cost. What the control sample is expected to cost, by the suspects that are
            not memorized, or the cheapest of the others, is kept back.
        spent: What it has cost before.
        known: Number of images at the head of the order that an earlier run searched as suspects: they are suspects,
            whatever ``clean`` and ``budget`` are now.

    Attributes:
        outcomes: What is known, by image.
        end: Why no further suspects are searched; None while they are.
    """

    def __init__(
        self,
        order: Sequence[int],
        shuffled: Sequence[int],
        *,
        control: int,
        clean: int,
        budget: float = math.inf,
        spent: float = 0.0,
        known: int = 0,
    ) -> None:
        self.outcomes: dict[int, Outcome] = {}
        self.end: End | None = None
        self._order = order
        self._shuffled = shuffled
        self._control = control
        self._clean = clean
        self._budget = budget
        self._spent = spent
        self._known = known
        self._given: set[int] = set()
        self._done = 0
        self._streak = 0
        self._costs: list[float] = []
        self._costs_of_clean: list[float] = []
        self._advance()

    @property
    def suspects(self) -> Sequence[int]:
        """The images searched in order so far, without a gap."""
        return self._order[: self._done]

    @property
    def control(self) -> Sequence[int]:
        """The control sample, once it is known which images are suspects; until then the images to draw it from."""
        suspects = set(self.suspects) if self.end else set()
        others = (image for image in self._shuffled if image not in suspects)
        return list(islice(others, self._control))

    @property
    def certain(self) -> Sequence[int]:
        """The images that are certain to be searched: suspects, then the control sample."""
        return list(dict.fromkeys([*self._order[: self._reach()], *self.control]))

    @property
    def finished(self) -> bool:
        """Whether all outcomes are known."""
        return self.end is not None and all(image in self.outcomes for image in self.control)

    def __next__(self) -> int:
        for image in chain(self._order[self._done : self._reach()], self.control):
            if image not in self._given and image not in self.outcomes:
                self._given.add(image)
                return image
        raise StopIteration

    def record(self, image: int, outcome: Outcome) -> None:
        """Take note of a search that has ended."""
        self.outcomes[image] = outcome
        self._advance()

    def _advance(self) -> None:
        while self.end is None:
            if self._done == len(self._order):
                self.end = End.ALL
            elif self._done >= self._known and self._streak >= self._clean:
                self.end = End.CLEAN
            elif self._done >= self._known and self._left() <= 0:
                self.end = End.BUDGET
            elif outcome := self.outcomes.get(self._order[self._done]):
                self._done += 1
                self._costs.append(outcome.cost)
                if outcome.memorized is False:
                    self._costs_of_clean.append(outcome.cost)
                self._streak = 0 if outcome.memorized else self._streak + (outcome.memorized is False)
            else:
                return

    def _reach(self) -> int:
        """The number of images at the head of the order that are certain to be suspects.

        With a budget they are, if none costs more than any before it.
        """
        if self.end:
            return self._done
        ahead = self._clean - self._streak
        if self._budget < math.inf:
            dearest = max(self._costs, default=math.inf)
            ahead = min(ahead, max(1, math.ceil(self._left() / dearest) if dearest else ahead))
        return min(len(self._order), self._done + ahead)

    def _left(self) -> float:
        """What may still be spent on suspects."""
        control = min(self._control, len(self._order) - self._done)
        clean = fmean(self._costs_of_clean) if self._costs_of_clean else min(self._costs, default=0.0)
        return self._budget - self._spent - sum(self._costs) - control * clean
