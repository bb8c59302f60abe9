"""The order of suspicion, and ``screening.csv``, which has scores in it. This module does not import torch."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv

from invmm_eval.audits.folder.files import write_atomically
from invmm_eval.audits.folder.scores import Score
from invmm_eval.errors import InvMMError, on_disk


def ranked(scores: Iterable[Score]) -> list[Score]:
    """The most suspicious first, equal ones in their order; those without a score last."""
    return sorted(scores, key=lambda one: (one.score is None, -(one.score or 0.0), one.index))


def distinct(scores: Sequence[Score]) -> list[Score]:
    """One score for each picture, in their order: of equal pictures that of the first image; none that failed."""
    first: dict[str, int] = {}
    for score in sorted(scores, key=lambda score: score.index):
        if score.score is not None:
            first.setdefault(score.picture, score.index)
    chosen = set(first.values())
    return [score for score in scores if score.index in chosen]


def require_scored(scores: Sequence[Score]) -> None:
    """Check that not all images of a ranking failed.

    Raises:
        InvMMError: They did.
    """
    if scores and scores[0].score is None:
        raise InvMMError(f"No image could be scored. Of {scores[0].name}: {scores[0].error}")


def write_ranking(scores: Sequence[Score], folder: Path) -> Path:
    """Write scores as CSV, in their order; returns the file.

    Raises:
        InvMMError: It cannot be written.
    """
    path = folder / "screening.csv"
    columns = ("name", "index", "score", "digest", "error")
    table = pa.table({column: [getattr(score, column) for score in scores] for column in columns})
    with on_disk(f"The ranking cannot be written to {path}"):
        write_atomically(path, lambda partial: pyarrow.csv.write_csv(table, partial))
    return path
