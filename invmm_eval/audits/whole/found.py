"""What an audit of a whole set found, and what that says about the images that were not searched."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from statistics import fmean

from invmm_eval.audits.folder.files import read_object, write_object
from invmm_eval.errors import InvMMError, on_disk
from invmm_eval.hints import check_types
from invmm_eval.search.result import Result
from invmm_eval.search.status import Verdict
from invmm_eval.statistics.finite import most_in

FILE = "whole.json"
FORMAT = 1


@dataclass(frozen=True)
class Design:
    """Which images of a set were searched, and why.

    Attributes:
        images: Number of images of the set.
        pictures: Number of different pictures among them that were scored. All other numbers count pictures.
        unreadable: Number of images that could not be scored.
        suspects: Those that were searched in the order of their suspicion, by their position in the set.
        control: The random sample of the others.
        end: Why no further suspects were searched: ``clean``, ``budget`` or ``all``; empty until all are searched.
        clean: The number in a row that ended it, if it was ``clean``.
        screen_rows: Network rows that the scores cost.
    """

    images: int
    pictures: int
    unreadable: int
    suspects: tuple[int, ...]
    control: tuple[int, ...]
    end: str
    clean: int
    screen_rows: int

    def save(self, folder: Path) -> None:
        """Write it to an audit's folder."""
        write_object(folder / FILE, {"format": FORMAT, **asdict(self)})

    @classmethod
    def load(cls, folder: Path) -> "Design | None":
        """Read it from an audit's folder; None if the audit is not of a whole set.

        Raises:
            InvMMError: It cannot be read, is damaged, or of a newer format.
        """
        path = folder / FILE
        with on_disk(f"{path} cannot be read"):
            if not path.exists():
                return None
            record = read_object(path)
        if type(record.get("format")) is int and record["format"] > FORMAT:
            raise InvMMError(f"{path} has format {record['format']}; this version reads {FORMAT}. Upgrade invmm-eval.")
        try:
            values = {field.name: record[field.name] for field in fields(cls)}
            design = cls(**values)
            check_types(design)
        except (KeyError, InvMMError) as error:
            raise InvMMError(f"{path} is damaged; remove it, and run the same audit again.") from error
        return design


@dataclass(frozen=True)
class WholeSet:
    """What an audit of a whole set found.

    Attributes:
        design: Which images were searched, and why.
        by_index: Their results, by position in the set.
    """

    design: Design
    by_index: Mapping[int, Result]

    @cached_property
    def suspects(self) -> Sequence[Result]:
        """The results of the suspects, the most suspicious first, without those that failed."""
        return self._measured(self.design.suspects)

    @cached_property
    def control(self) -> Sequence[Result]:
        """The results of the control sample, without those that failed."""
        return self._measured(self.design.control)

    @property
    def failed(self) -> int:
        """Number of searches that failed: nothing is known about their pictures."""
        return len(self.design.suspects) + len(self.design.control) - len(self.suspects) - len(self.control)

    @cached_property
    def found(self) -> Sequence[Result]:
        """The suspects that are memorized."""
        return list(filter(memorized, self.suspects))

    @cached_property
    def missed(self) -> Sequence[Result]:
        """The images of the control sample that are memorized: the screen ranked them behind the suspects."""
        return list(filter(memorized, self.control))

    @property
    def others(self) -> int:
        """Number of pictures that are no suspects. Those whose search failed are not counted."""
        return self.design.pictures - len(self.design.suspects) - (len(self.design.control) - len(self.control))

    @property
    def not_searched(self) -> int:
        """Number of pictures that were not searched."""
        return self.others - len(self.control)

    @cached_property
    def most_others(self) -> int:
        """Upper limit, at 95 % confidence, of the number of memorized pictures that are no suspects."""
        return most_in(self.others, len(self.missed), len(self.control))

    @property
    def most_not_searched(self) -> int:
        """Upper limit, at 95 % confidence, of the number of memorized pictures that were not searched."""
        return self.most_others - len(self.missed)

    @property
    def miss_rate(self) -> float | None:
        """Share of the control sample that is memorized; None without one."""
        return len(self.missed) / len(self.control) if self.control else None

    @property
    def most_missed(self) -> float:
        """Upper limit, at 95 % confidence, of the share of memorized pictures that are no suspects."""
        memorized_at_most = len(self.found) + self.most_others
        return self.most_others / memorized_at_most if memorized_at_most else 0.0

    @property
    def rows(self) -> int:
        """Network rows that the audit cost."""
        return self.design.screen_rows + sum(result.rows or 0 for result in self.by_index.values())

    @property
    def rows_of_all(self) -> int | None:
        """Network rows that searching all pictures would have cost, by the mean of the control sample."""
        if not self.control:
            return None
        suspects = sum(result.rows or 0 for result in self.suspects)
        return suspects + round(self.others * fmean(result.rows or 0 for result in self.control))

    def _measured(self, indices: Sequence[int]) -> list[Result]:
        return [self.by_index[index] for index in indices if memorized(self.by_index[index]) is not None]


def memorized(result: Result) -> bool | None:
    """Whether an image is memorized; None if its search failed."""
    return None if result.verdict is Verdict.FAILED else result.verdict is Verdict.MEMORIZED
