"""Two audits of the same images, compared: before and after a fine-tuning, a mitigation, or steps of training."""

import math
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from invmm_eval.audits.folder.format import differing, settings_of
from invmm_eval.errors import InvMMError
from invmm_eval.reports.findings import Findings, find
from invmm_eval.reports.numbers import are, images
from invmm_eval.search.fields import FIELDS, Field, finite
from invmm_eval.search.result import PLAIN_SHARE, Result, Status
from invmm_eval.search.status import RAREST, Verdict
from invmm_eval.statistics.paired import Tested, changed_ranks, changed_sides, difference

if TYPE_CHECKING:
    import pandas

SHOWN = tuple(field for field in FIELDS if field.name in ("verdict", "plain_share", "limit_nats", "invmm", "nats"))
"""The fields of each image in both audits."""
LIMIT = next(field for field in FIELDS if field.name == "limit_nats")
"""The distance of a share, -ln(share), with its interval."""
_OF_THE_MODEL = {"name", "dtype", "pipeline", "proved"}
"""Settings of a backbone that differ from model to model."""


class Change(StrEnum):
    """What happened to an image from audit A to audit B."""

    BECAME = "became"
    """Memorized in B alone."""
    FREED = "freed"
    """Memorized in A alone."""
    BOTH = "both"
    """Memorized in both."""
    NEITHER = "neither"
    """Memorized in neither."""
    FAILED = "not measured"
    """The search failed in one of them, or in both."""
    ONLY_A = "only in A"
    """Not among the images of B."""
    ONLY_B = "only in B"
    """Not among the images of A."""


@dataclass(frozen=True)
class Pair:
    """One image in two audits.

    Attributes:
        a: Its result in audit A; None if it is not among the images of A.
        b: Its result in audit B, likewise.
        level: The verdict that counts: memorized, or, where the recipe estimates no share, replicable.
    """

    a: Result | None
    b: Result | None
    level: Verdict

    @property
    def either(self) -> Result:
        """That of A if there is one."""
        result = self.a or self.b
        assert result
        return result

    @cached_property
    def change(self) -> Change:
        """What happened to it."""
        if not (self.a and self.b):
            return Change.ONLY_A if self.a else Change.ONLY_B
        if Verdict.FAILED in (self.a.verdict, self.b.verdict):
            return Change.FAILED
        before, after = (
            list(Verdict).index(one.verdict) <= list(Verdict).index(self.level) for one in (self.a, self.b)
        )
        return {
            (False, True): Change.BECAME,
            (True, False): Change.FREED,
            (True, True): Change.BOTH,
            (False, False): Change.NEITHER,
        }[before, after]

    @property
    def nats(self) -> tuple[float | None, float | None]:
        """-ln(share), or InvMM in nats in total without shares, up to :attr:`farthest`; None where it is not known."""
        return self._nats_of(self.a), self._nats_of(self.b)

    def _nats_of(self, result: Result | None) -> float | None:
        if result is None or result.status is Status.FAILED:
            return None
        if self.level is Verdict.MEMORIZED:
            return min(result.plain_share.nats, self.farthest) if result.plain_share else None
        return math.inf if result.nats is None else result.nats

    @property
    def farthest(self) -> float:
        """The distance without a copy: of :data:`RAREST`, as of all shares below it, or infinite without shares."""
        return -math.log(RAREST) if self.level is Verdict.MEMORIZED else math.inf

    @property
    def nats_change(self) -> float | None:
        """Their difference: below 0 where B gives copies more often. 0 if both are equal; None if one is unknown."""
        before, after = self.nats
        if before is None or after is None:
            return None
        return after - before if before != after else 0.0

    @property
    def nats_ends(self) -> tuple[float, float] | None:
        """What the intervals of both shares leave open; None without them."""
        if self.nats_change is None or self.level is not Verdict.MEMORIZED:
            return None
        assert self.a
        assert self.b
        assert LIMIT.interval
        before, after = LIMIT.interval(self.a), LIMIT.interval(self.b)
        return difference(before, after) if before and after else None

    @property
    def is_clear(self) -> bool:
        """Whether the intervals of both shares have nothing in common."""
        return self.nats_ends is not None and (self.nats_ends[0] > 0 or self.nats_ends[1] < 0)


@dataclass(frozen=True, repr=False)
class Comparison:
    """Two audits, paired by image: the same pixels with the same caption. See :func:`compare`.

    Attributes:
        a: Audit A.
        b: Audit B.
        pairs: All images of both: those that changed first, the largest change of each kind first.
        level: The verdict that counts: memorized, or, where the recipe estimates no share, replicable.
    """

    a: Findings
    b: Findings
    pairs: tuple[Pair, ...]
    level: Verdict

    def __repr__(self) -> str:
        return f"<Comparison: {self.headline}>"

    @property
    def word(self) -> str:
        """What an image of :attr:`level` is: memorized or replicated."""
        return "memorized" if self.level is Verdict.MEMORIZED else "replicated"

    @property
    def value(self) -> Field:
        """The field that is compared: the share of copies among plain samples, or nats in total without shares."""
        name = "plain_share" if self.level is Verdict.MEMORIZED else "nats"
        return next(field for field in SHOWN if field.name == name)

    @property
    def headline(self) -> str:
        """How many images changed, in one sentence."""
        count, became, freed, both = map(len, (self.measured, self.became, self.freed, self.of(Change.BOTH)))
        before = both + freed
        if not count:
            return "No image was measured in both audits."
        return (
            f"Of {images(count)}, {before:,} {are(before)} {self.word} "
            f"in A and {both + became:,} in B: {became:,} became {self.word}, {freed:,} no longer {are(freed)}."
        )

    def of(self, *changes: Change) -> tuple[Pair, ...]:
        """The images to which this happened."""
        return tuple(pair for pair in self.pairs if pair.change in changes)

    @property
    def became(self) -> tuple[Pair, ...]:
        """The images that are memorized in B alone."""
        return self.of(Change.BECAME)

    @property
    def freed(self) -> tuple[Pair, ...]:
        """The images that are memorized in A alone."""
        return self.of(Change.FREED)

    @property
    def measured(self) -> tuple[Pair, ...]:
        """The images that were measured in both audits: those that the tests are about."""
        return self.of(Change.BECAME, Change.FREED, Change.BOTH, Change.NEITHER)

    @property
    def valued(self) -> tuple[Pair, ...]:
        """Those of :attr:`measured` that have a distance in both."""
        return tuple(pair for pair in self.measured if pair.nats_change is not None)

    @property
    def copied(self) -> tuple[Pair, ...]:
        """Those of :attr:`valued` that have measured copies in both: their distances are below the farthest."""
        return tuple(pair for pair in self.valued if pair.farthest not in pair.nats)

    @property
    def typical(self) -> float | None:
        """The median change of the distance, in nats, over :attr:`copied`; None without any."""
        changes = [pair.nats_change for pair in self.copied]
        return statistics.median(change for change in changes if change is not None) if changes else None

    @cached_property
    def sides(self) -> Tested:
        """Whether as many images became memorized as were freed (McNemar's exact test)."""
        return changed_sides(len(self.became), len(self.freed))

    @cached_property
    def ranks(self) -> Tested:
        """Whether the distances changed up and down alike (Wilcoxon's signed-rank test)."""
        before, after = zip(*(pair.nats for pair in self.valued), strict=True) if self.valued else ((), ())
        return changed_ranks(before, after)

    @property
    def differing(self) -> Mapping[str, tuple[str, str]]:
        """The settings that differ, such as the model, with those of A and of B."""
        one, other = self.a.settings, self.b.settings
        names = [*one, *(name for name in other if name not in one)]
        return {
            name: (one.get(name, "none"), other.get(name, "none"))
            for name in names
            if name != "Recipe" and one.get(name) != other.get(name)
        }

    def table(self) -> pa.Table:
        """One row per image; what is infinite or unknown is null, and ``change`` says which images were left out.

        Columns: ``name``, ``digest``, ``caption``, ``change`` (:class:`Change`), of both audits those of
        :data:`SHOWN` with their intervals, ending in ``_a`` and ``_b``, and ``nats_change`` with its ends.
        """
        rows = [pair.either for pair in self.pairs]
        columns: dict[str, pa.Array] = {
            "name": pa.array([row.name for row in rows], pa.string()),
            "digest": pa.array([row.digest for row in rows], pa.string()),
            "caption": pa.array([row.caption for row in rows], pa.string()),
            "change": pa.array([str(pair.change) for pair in self.pairs], pa.string()),
        }
        for field in (column for shown in SHOWN for column in shown.columns()):
            for side in ("a", "b"):
                results = [getattr(pair, side) for pair in self.pairs]
                columns[f"{field.name}_{side}"] = pa.array(
                    [result and finite(field.value(result)) for result in results], field.type
                )
        ends = [pair.nats_ends or (None, None) for pair in self.pairs]
        columns["nats_change"] = pa.array([finite(pair.nats_change) for pair in self.pairs], pa.float64())
        columns["nats_change_low"] = pa.array([finite(low) for low, _ in ends], pa.float64())
        columns["nats_change_high"] = pa.array([finite(high) for _, high in ends], pa.float64())
        return pa.table(columns)

    def to_pandas(self) -> "pandas.DataFrame":
        """The :meth:`table` as a data frame."""
        frame: pandas.DataFrame = self.table().to_pandas()
        return frame

    def record(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        return {
            "a": {"model": self.a.config["model"], "weights": self.a.config["weights"]},
            "b": {"model": self.b.config["model"], "weights": self.b.config["weights"]},
            "differing": {name: {"a": one, "b": other} for name, (one, other) in self.differing.items()},
            "counted": str(self.level),
            "counts": {str(change): len(self.of(change)) for change in Change},
            "tests": {"mcnemar": self.sides._asdict(), "wilcoxon": self.ranks._asdict()},
            "median_nats_change": self.typical,
            "images": self.table().to_pylist(),
        }


def compare(a: str | Path, b: str | Path) -> Comparison:
    """Compare two finished audits image by image.

    Args:
        a: Folder of audit A: the base model, or the model before a change.
        b: Folder of audit B: the fine-tuned model, or the model after it.

    Raises:
        InvMMError: One is no audit, is not finished, was measured with another recipe, similarity, threshold or noise
            family than the other, or has no image in common with it.
    """
    one, other = find(a), find(b)
    for findings in (one, other):
        _check_finished(findings)
    _check_settings(one, other)
    level = Verdict.MEMORIZED if PLAIN_SHARE in one.recipe.estimators else Verdict.REPLICABLE
    before, after = _by_image(one), _by_image(other)
    pairs = [Pair(before.get(image), after.get(image), level) for image in {**before, **after}]
    if not before.keys() & after.keys():
        raise InvMMError(_nothing_in_common(one, other))
    return Comparison(one, other, tuple(sorted(pairs, key=_order)), level)


def _by_image(findings: Findings) -> dict[tuple[str, str | None], Result]:
    """The results by pixels and caption; images that could not be read, which have no digest, by their names."""
    results = sorted(findings.results, key=lambda result: -result.index)
    return {(result.digest, result.caption) if result.digest else ("", result.name): result for result in results}


def _order(pair: Pair) -> tuple[Any, ...]:
    change = pair.nats_change
    return list(Change).index(pair.change), 0.0 if change is None else -abs(change), pair.either.index


def _check_finished(findings: Findings) -> None:
    folder, progress = findings.record.folder, findings.record.progress
    whole = "control" in findings.record.request and findings.whole is None
    if findings.images and not progress.waiting and not progress.running and not whole:
        return
    how = "is still running; wait for its end" if progress.running else "is not finished; run its command again"
    raise InvMMError(f"{folder} {how}: a comparison needs the results of all its images.")


def _check_settings(a: Findings, b: Findings) -> None:
    one, other = (dict(_decisive(findings)) for findings in (a, b))
    shared = one.keys() & other.keys()
    wrong = [key for key in differing(one, other) if key in shared or not key.startswith("backbone.")]
    if a.recipe.name != b.recipe.name and any(key.startswith("recipe.") for key in wrong):
        one["recipe"], other["recipe"] = a.recipe.name, b.recipe.name
        wrong = ["recipe", *(key for key in wrong if not key.startswith("recipe."))]
    if wrong:
        told = "; ".join(
            f"{key} is {one.get(key, 'not set')} in A and {other.get(key, 'not set')} in B" for key in wrong
        )
        raise InvMMError(
            f"{a.record.folder} and {b.record.folder} were not measured in the same way: {told}. Only the model may "
            "differ; audit the images again with the same settings."
        )


def _decisive(findings: Findings) -> Iterator[tuple[str, Any]]:
    """What determines a value besides the model, the seed and versions: the effective threshold counts, however set."""
    config = findings.config
    yield "threshold", findings.threshold
    for name, value in settings_of({part: config[part] for part in ("similarity", "noise", "recipe", "backbone")}):
        part, _, key = name.partition(".")
        if key != "threshold" and name != "recipe.name" and not (part == "backbone" and key in _OF_THE_MODEL):
            yield name, value


def _nothing_in_common(a: Findings, b: Findings) -> str:
    pixels, others = ({result.digest for result in findings.results if result.digest} for findings in (a, b))
    why = "their captions differ" if pixels & others else "an image is known by its pixels at the model's size"
    return f"{a.record.folder} and {b.record.folder} have no image in common: {why}. Audit the same images in both."
