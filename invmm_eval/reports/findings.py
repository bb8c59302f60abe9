"""Findings: the numbers of an audit and the sentences about it, which all faces share.

The sentences need no knowledge of diffusion models and claim no more than ``docs/number.md`` does: the verdict follows
the share of plain samples that are copies where it was estimated; a replica from chosen noise alone does not prove
memorization; the lack of a replica does not rule it out. If the prompt was searched too, what is said of plain samples
holds for that prompt.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import islice
from pathlib import Path

import pyarrow as pa

from invmm_eval.audits.folder import read
from invmm_eval.audits.progress import Bar
from invmm_eval.audits.request import command
from invmm_eval.audits.results import NO_SHARE, share_is_known, table
from invmm_eval.errors import InvMMError
from invmm_eval.reports import settings
from invmm_eval.reports.failures import by_reason, listed
from invmm_eval.reports.numbers import are
from invmm_eval.reports.ranked import Ranked
from invmm_eval.reports.summary import NOT_PUBLISHED, Summary
from invmm_eval.reports.whole import found_of, sentences
from invmm_eval.reports.wording import LOOK, REMEDY, limits
from invmm_eval.search.fields import Field, columns, percent
from invmm_eval.search.result import Result
from invmm_eval.search.sentence import one_in, plain_samples, sentence
from invmm_eval.search.status import MEMORIZED, Verdict

_ROWS = 1024
"""Number of results in memory when a table is written."""


class Findings(Summary):
    """One audit: its numbers (:class:`Summary`) and what they mean."""

    @cached_property
    def headline(self) -> str:
        """The verdict in one or two sentences, out of all images, or as many as were searched of a whole set."""
        if not self.images:
            return "This audit has no results yet."
        alone = self.images == 1
        searched = " searched" if self.images < self.total or self.is_part else ""
        if not self.measured:
            return "The image could not be measured." if alone else f"None of the {self.images:,} images was measured."
        if memorized := self.of(Verdict.MEMORIZED):
            kinds = {plain_samples(result) for result in memorized}
            plain = kinds.pop() if len(kinds) == 1 else "plain samples, with or without a prompt as named below,"
            found = found_of(self.whole) if self.whole else _some(len(memorized), self.images, searched)
            each = "" if len(memorized) == 1 else "of each, "
            return f"{found} memorized: {each}at least {one_in(MEMORIZED)} {plain} is a copy."
        if replicable := self.of(Verdict.REPLICABLE):
            return (
                f"{_some(len(replicable), self.images, searched)} replicable from noise that the search chose. This "
                "does not show that plain sampling produces copies."
            )
        none = f"The image{searched} was not" if alone else f"None of the {self.images:,} images{searched} was"
        return f"{none} replicated within the budget. This does not rule out memorization."

    @property
    def paragraphs(self) -> tuple[str, ...]:
        """The facts behind the headline, one paragraph each."""
        return tuple(self._paragraphs())

    def _paragraphs(self) -> Iterator[str]:
        if self.measured:
            first = self.results[0]
            if first.verdict in (Verdict.MEMORIZED, Verdict.REPLICABLE):
                yield f"Most memorized is {first.name or 'an unnamed image'}: {sentence(first)}."
            if not share_is_known(self.results.examples):
                yield NO_SHARE
            if self.of(Verdict.MEMORIZED):
                yield f"Before a release, {REMEDY.format('the memorized images', 'their')}. Then audit again."
            if self.of(Verdict.REPLICABLE):
                yield (
                    f"For an image that is replicable, {LOOK} Then compare its nats with those of images that are "
                    "known to be new: only clearly fewer nats suggest that it was memorized."
                )
            if self.whole:
                _, *others = sentences(self.whole)  # the headline says the first
                yield from others
            if self.is_part:
                yield "The audit of this set is not complete: nothing is known about images that were not searched."
        yield from self._failures()
        if self.images and not self.measured:
            yield "Nothing can be concluded about memorization."

    def _failures(self) -> Iterator[str]:
        """Each reason of failure once, and how to see more; nothing where reasons are not published."""
        failed = [result for result in self.of(Verdict.FAILED) if result.error and result.error != NOT_PUBLISHED]
        yield from listed(by_reason({"name": r.name, "status": r.status, "error": r.error} for r in failed))
        if any(result.traceback for result in failed):
            yield (
                "The tracebacks of unexpected errors are in results.jsonl; with --debug the same command prints the "
                "first one of the images that fail again."
            )

    @property
    def limits(self) -> tuple[str, ...]:
        """What the measure cannot show with this recipe."""
        return tuple(limits(self.recipe, self.config["backbone"].get("prompt_mode")))

    @property
    def what_is_a_copy(self) -> str:
        """The threshold of the similarity, and which near copies count."""
        similarity = self.config["similarity"]
        near = []
        if similarity.get("flip"):
            near.append("mirrored (left to right)")
        if pixels := similarity.get("shift"):
            near.append(f"shifted by up to {pixels} {'pixel' if pixels == 1 else 'pixels'}")
        if part := similarity.get("crop"):
            near.append(f"enlarged from {percent(part)} of the sides, at a corner or in the middle")
        also = f" A copy may also be {' or '.join(near)}." if near else ""
        name = similarity["name"]
        return f"A sample is a copy if its similarity to the image ({name}) is at least {self.threshold:g}.{also}"

    @property
    def settings(self) -> Mapping[str, str]:
        """What was audited and how: settings by name, in words."""
        return settings.settings(self)

    @property
    def facts(self) -> Mapping[str, str]:
        """The settings, the time of the last result, and what the searches cost."""
        if not self.written:
            return self.settings
        rows, seconds = self.results.rows, self.results.seconds
        spent = f"{rows:,} network rows (one row: one sample in one network call), " if rows else ""
        return {
            **self.settings,
            "Measured": f"{self.written:%Y-%m-%d %H:%M} UTC",
            "Searches took": f"{spent}{timedelta(seconds=round(seconds))} hours",
        }

    @property
    def command(self) -> str:
        """The command that reproduces the audit, one option per line."""
        return command(self.record.request)

    @cached_property
    def columns(self) -> Sequence[Field]:
        """The columns of the face ``dataset``."""
        return columns("dataset", self.results.examples, self.describe)

    def table(self) -> pa.Table:
        """One row per image in the order of ``results``, with these columns."""
        return pa.concat_tables([table([], self.columns), *(part for _, part in self.parts())])

    def parts(self, rows: int | None = None) -> Iterator[tuple[Sequence[Result], pa.Table]]:
        """The results and their :meth:`table`, a part of the rows at a time, since memory does not hold all results."""
        with Bar(self.images, doing="writing") as bar:
            results = bar.over(self.results)
            while part := list(islice(results, rows or _ROWS)):
                yield part, table(part, self.columns)


def _some(count: int, of: int, searched: str = "") -> str:
    if of == 1:
        return f"The image{searched} is"
    return f"{count:,} of {'the ' if searched else ''}{of:,} images{searched} {are(count)}"


def find(folder: str | Path) -> Findings:
    """The findings of the audit in a folder, complete or not.

    Raises:
        InvMMError: The folder holds no audit, or it is damaged.
    """
    record = read(folder)
    lines = record.folder / "results.jsonl"
    try:
        results = Ranked(record)
    except (KeyError, TypeError, ValueError) as error:
        raise InvMMError(
            f"{lines} cannot be read by this version of invmm-eval ({error}); run the audit again."
        ) from error
    written = datetime.fromtimestamp(lines.stat().st_mtime, UTC) if results else None
    return Findings(record=record, results=results, written=written)
