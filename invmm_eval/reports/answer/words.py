"""What is said about one image to somebody who asks whether a model memorized it."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from invmm_eval.audits.folder.scores import Score
from invmm_eval.reports.failures import reason
from invmm_eval.reports.findings import Findings
from invmm_eval.reports.numbers import capital
from invmm_eval.reports.shown import Shown
from invmm_eval.reports.wording import LOOK, REMEDY, meaning
from invmm_eval.search.fields import number, present
from invmm_eval.search.result import Result
from invmm_eval.search.status import Verdict

_SHORT = {
    Verdict.MEMORIZED: "Yes: plain sampling gives copies of it.",
    Verdict.REPLICABLE: "Not shown: copies were found, but only from noise that the search chose.",
    Verdict.NOT_REPLICATED: "No copy was found. This does not rule out that it was memorized.",
    Verdict.FAILED: "It could not be measured.",
}
_MORE = "To look further, try another --seed, and near copies (--similarity-option flip=true, shift=2 or crop=0.8)."
_NEXT = {
    Verdict.MEMORIZED: f"What to do: {REMEDY.format('the image', 'its')}.",
    Verdict.REPLICABLE: f"{capital(LOOK)} {_MORE}",
    Verdict.NOT_REPLICATED: _MORE,
}
_ELSEWHERE = ("name", "verdict", "finding", "error", "similarity")
"""Fields that are said in sentences and below samples."""


@dataclass(frozen=True)
class Answer:
    """The answer about one image.

    Attributes:
        findings: The audit of this image alone.
        score: How suspicious it is to the detector ``mirrored-loss``.
    """

    findings: Findings
    score: Score

    @cached_property
    def result(self) -> Result:
        """What the search found."""
        [result] = self.findings.results
        return result

    @property
    def question(self) -> str:
        """What was asked."""
        return f"Did {self.findings.model} memorize {self.result.name}?"

    @property
    def short(self) -> str:
        """The answer in one line."""
        return _SHORT[self.result.verdict]

    @property
    def paragraphs(self) -> tuple[str, ...]:
        """The answer in full: the share, what is a copy, the samples shown, the screen, and what to do."""
        return tuple(self._paragraphs())

    def _paragraphs(self) -> Iterator[str]:
        result = self.result
        if result.error:
            yield reason(result.name, result.error)
            return
        yield meaning(result)
        yield self.findings.what_is_a_copy
        if shown := self.shown:
            copies = sum(sample.is_copy for sample in shown.samples)
            count = f"{copies:,} of the {len(shown.samples):,} samples shown"
            are = "is a copy" if copies == 1 else "are copies"
            noise = (
                "The search chose their noise, so they are no plain samples" if result.kl else "Their noise is plain"
            )
            yield f"{count} {are}. {noise}."
            if shown.copied:
                yield shown.copied.sentence
        yield self._screen()
        yield _NEXT[result.verdict]

    def _screen(self) -> str:
        if self.score.score is None:
            return f"The screen failed: {self.score.error}"
        return (
            "A hint from before the search: the model's error in restoring the image from a little noise is "
            f"{number(math.exp(-self.score.score))} times its error for the mirrored image (left to right, and upside "
            "down). About 1 is expected for an image that the model never saw. This is no evidence: many images are "
            "unusual upside down, and a model that was trained on mirrored images knows both."
        )

    @cached_property
    def shown(self) -> Shown | None:
        """The image and its samples; None if it could not be read."""
        return Shown.of(self.findings, self.result)

    @property
    def facts(self) -> Mapping[str, str]:
        """What was measured and how, in words."""
        fields = {
            capital(field.title): field.full(self.result)
            for field in present("details", [self.result], self.findings.describe)
            if field.name not in _ELSEWHERE and self.result.check
        }
        digest = {"Image (SHA-256)": self.result.digest} if self.result.digest else {}
        return {**fields, **digest, **self.findings.facts}
