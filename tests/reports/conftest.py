"""The audit that the tests of reports read."""

from pathlib import Path

import pytest

from invmm_eval.reports.findings import Findings, find
from tests.helpers import audits


@pytest.fixture(scope="module")
def guided(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return audits.guided(tmp_path_factory.mktemp("guided"))


@pytest.fixture(scope="module")
def found(guided: Path) -> Findings:
    return find(guided)
