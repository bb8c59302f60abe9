"""Findings: the numbers of an audit and the sentences about it, which all faces share."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from invmm_eval.audits.folder import read
from invmm_eval.audits.request import command
from invmm_eval.audits.results import Results
from invmm_eval.errors import InvMMError
from invmm_eval.reports import settings, wording
from invmm_eval.reports.summary import Summary
from invmm_eval.search.result import rank


class Findings(Summary):
    """One audit: its numbers (:class:`Summary`) and what they mean."""

    @property
    def headline(self) -> str:
        """The verdict in one or two sentences."""
        return wording.headline(self)

    @property
    def paragraphs(self) -> tuple[str, ...]:
        """The facts behind the headline, one paragraph each."""
        return tuple(wording.paragraphs(self))

    @property
    def limits(self) -> tuple[str, ...]:
        """What the measure cannot show with this recipe."""
        return tuple(wording.limits(self.recipe))

    @property
    def what_is_a_copy(self) -> str:
        """The threshold of the similarity, and which near copies count."""
        return wording.what_is_a_copy(self)

    @property
    def settings(self) -> Mapping[str, str]:
        """What was audited and how: settings by name, in words."""
        return settings.settings(self)

    @property
    def command(self) -> str:
        """The command that reproduces the audit, one option per line."""
        return command(self.record.request)

    def table(self) -> pa.Table:
        """One row per image in the order of ``results``, with the columns of the face ``dataset``."""
        return Results(self.results).table()


@contextmanager
def readable(lines: Path) -> Iterator[None]:
    """Tell in one sentence that rows of a file are not those of this version."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise InvMMError(
            f"{lines} cannot be read by this version of invmm-eval ({error}); run the audit again."
        ) from error


def find(folder: str | Path) -> Findings:
    """The findings of the audit in a folder, complete or not.

    Raises:
        InvMMError: The folder holds no audit, or it is damaged.
    """
    record = read(folder)
    lines = record.folder / "results.jsonl"
    with readable(lines):
        results = sorted(record.results(), key=rank)
    written = datetime.fromtimestamp(lines.stat().st_mtime, UTC) if results else None
    return Findings(record=record, results=tuple(results), written=written)
