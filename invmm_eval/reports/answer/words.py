"""What is said about one picture to somebody who asks whether a model memorized it."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from PIL import Image

from invmm_eval.audits.folder.scores import Score
from invmm_eval.reports.copied import CopiedPart, copied_part
from invmm_eval.reports.failures import reason
from invmm_eval.reports.findings import Findings
from invmm_eval.reports.numbers import capital
from invmm_eval.reports.wording import meaning
from invmm_eval.search.fields import number, present
from invmm_eval.search.result import Result
from invmm_eval.search.sheet import cut
from invmm_eval.search.status import Verdict

_SHORT = {
    Verdict.MEMORIZED: "Yes: plain sampling gives copies of it.",
    Verdict.REPLICABLE: "Not shown: copies come from noise that a search chose.",
    Verdict.NOT_REPLICATED: "No copy was found. This does not rule out that it was memorized.",
    Verdict.FAILED: "It could not be measured.",
}
_ELSEWHERE = ("name", "verdict", "finding", "error", "similarity")
"""Fields that are said in sentences and below samples."""


class Sample(NamedTuple):
    """A sample of the model.

    Attributes:
        image: Its pixels.
        similarity: To the picture.
        is_copy: Whether the similarity reaches the threshold.
    """

    image: Image.Image
    similarity: float
    is_copy: bool


@dataclass(frozen=True)
class Answer:
    """The answer about one picture.

    Attributes:
        findings: The audit of this picture alone.
        score: How suspicious it is to the detector ``mirrored-loss``.
    """

    findings: Findings
    score: Score

    @property
    def result(self) -> Result:
        """What the search found."""
        [result] = self.findings.results
        return result

    @property
    def question(self) -> str:
        """What was asked."""
        return f"Did {self.findings.config['model']} memorize {self.result.name}?"

    @property
    def short(self) -> str:
        """The answer in one line."""
        return _SHORT[self.result.verdict]

    @property
    def paragraphs(self) -> tuple[str, ...]:
        """The answer in full: the share, what counts as a copy, the samples shown, and the screen."""
        return tuple(self._paragraphs())

    def _paragraphs(self) -> Iterator[str]:
        result = self.result
        if result.error:
            yield reason(result.name, result.error)
            return
        yield meaning(result)
        if result.check:
            similarity = self.findings.config["similarity"]["name"]
            copies = sum(sample.is_copy for sample in self.samples)
            yield (
                f"A sample counts as a copy if its similarity to the picture ({similarity}) is at least "
                f"{self.findings.threshold:g}: {copies:,} of the {len(self.samples):,} samples shown. Their noise is "
                "not plain: the search chose it."
            )
        if self.copied:
            yield self.copied.sentence
        yield self._screen()

    def _screen(self) -> str:
        if self.score.score is None:
            return f"The screen failed: {self.score.error}"
        return (
            "Before the search: the model's error in restoring the picture from a little noise is "
            f"{number(math.exp(-self.score.score))} times that for its own mirror images, left to right and upside "
            "down. About 1 is expected of a picture that the model never saw. This is a hint and no evidence: upside "
            "down many pictures are unusual, and a model that was trained on mirrored pictures knows both."
        )

    @cached_property
    def picture(self) -> Image.Image | None:
        """The picture at the model's size; None if it could not be read."""
        sheet = self._sheet
        return cut(sheet, self.findings.image_shape, 0, 0) if sheet else None

    @cached_property
    def samples(self) -> tuple[Sample, ...]:
        """The samples of the last check at the best guidance scale."""
        check, sheet = self.result.check, self._sheet
        if check is None or sheet is None:
            return ()
        shape, row, threshold = self.findings.image_shape, check.best_row, self.findings.threshold
        return tuple(
            Sample(cut(sheet, shape, row, column), similarity, similarity >= threshold)
            for column, similarity in enumerate(check.similarities[check.best_scale], start=1)
        )

    @cached_property
    def copied(self) -> CopiedPart | None:
        """Which part of the picture the samples copy."""
        check, sheet = self.result.check, self._sheet
        return copied_part(sheet, self.findings, check) if check and sheet else None

    @property
    def facts(self) -> Mapping[str, str]:
        """What was measured and how, in words."""
        fields = {
            capital(field.title): field.full(self.result)
            for field in present("details", self.findings.results, self.findings.describe)
            if field.name not in _ELSEWHERE and self.result.check
        }
        digest = {"Picture (SHA-256)": self.result.digest} if self.result.digest else {}
        written = self.findings.written
        when = {"Measured": f"{written:%Y-%m-%d %H:%M} UTC"} if written else {}
        return {**fields, **digest, **self.findings.settings, **when}

    @property
    def limits(self) -> tuple[str, ...]:
        """What the measure cannot show."""
        return self.findings.limits

    @cached_property
    def _sheet(self) -> Image.Image | None:
        return self.findings.sheet(self.result)
