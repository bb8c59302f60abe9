"""The answer as a page: all of it, and nothing that runs or is loaded."""

from collections.abc import Callable
from html import unescape
from pathlib import Path

import pytest

from invmm_eval.reports.answer.page import write_page
from invmm_eval.reports.answer.words import Answer
from invmm_eval.search.status import Verdict
from tests.reports.pages import check_that_nothing_is_loaded


@pytest.mark.parametrize("verdict", Verdict)
def test_the_page_has_all_of_the_answer(
    verdict: Verdict, answered: Callable[[Verdict], Answer], tmp_path: Path
) -> None:
    answer = answered(verdict)
    write_page(answer, tmp_path / "answer.html")
    written = (tmp_path / "answer.html").read_text("utf-8")
    for text in (answer.question, answer.short, *answer.paragraphs, *answer.findings.limits, *answer.facts.values()):
        assert text in unescape(written)
    assert written.count("data:image/png") == (1 + len(answer.shown.samples) if answer.shown else 0)
    check_that_nothing_is_loaded(written)
