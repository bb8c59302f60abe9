"""Two audits of the same pictures: one of each change, and pictures that were left out."""

import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from invmm_eval.recipe import STABLE_DIFFUSION, fast
from invmm_eval.reports.comparison import Comparison, compare
from invmm_eval.search.result import Result, Status
from invmm_eval.search.target import Target
from tests.helpers import audits

CONFIG = {**audits.CONFIG, "recipe": asdict(fast(STABLE_DIFFUSION))}
OTHER = {**CONFIG, "model": "org/painter-tuned", "weights": "6" * 40}
OFTEN = {"share": 1 / 20, "low": 1 / 30, "high": 1 / 15, "copies": 30, "plain_copies": 25, "plain_samples": 512}
SELDOM = {"share": 1e-6, "low": 1e-9, "high": 1 / 139, "copies": 3, "plain_copies": 0, "plain_samples": 512}
NONE = {"high": 1 / 139, "plain_copies": 0, "plain_samples": 512}


def of(index: int, share: Mapping[str, Any] | None, status: Status = Status.REPLICATED) -> tuple[Result, Target]:
    """A picture with this share; None for one without a share."""
    result, target = audits.result(index, status, 0.02)
    return result if share is None else audits.shared(result, **share), target


def failed(index: int) -> tuple[Result, Target]:
    """A picture that is known, whose search failed."""
    result, target = audits.result(index, Status.FAILED)
    return replace(result, digest=target.digest), target


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("comparison")
    a = [
        of(0, NONE, Status.EXHAUSTED),
        of(1, OFTEN),
        of(2, OFTEN),
        of(3, NONE),
        of(4, SELDOM),
        of(5, OFTEN),
        of(6, None),
    ]
    b = [of(0, OFTEN), of(1, NONE), of(2, {**OFTEN, "share": 1 / 17}), of(3, NONE), of(4, NONE), failed(5), of(6, None)]
    return (
        audits.write(folder / "a", [*a, of(7, OFTEN), audits.result(9, Status.FAILED)], CONFIG),
        audits.write(folder / "b", [*b, of(8, OFTEN), audits.result(9, Status.FAILED)], OTHER),
    )


@pytest.fixture(scope="module")
def compared(folders: tuple[Path, Path]) -> Comparison:
    return compare(*folders)


@pytest.fixture
def copies(folders: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """Copies of both folders, to be changed."""
    a, b = (Path(shutil.copytree(folder, tmp_path / folder.name)) for folder in folders)
    return a, b
