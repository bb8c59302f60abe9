"""The answer as a page: all of it, and nothing that runs or is loaded."""

import re
from collections.abc import Callable
from html import unescape
from pathlib import Path

import pytest

from invmm_eval.reports.answer import Answer
from invmm_eval.reports.answer.page import write_page
from invmm_eval.reports.html.embed import allowed
from invmm_eval.search.status import Verdict


@pytest.mark.parametrize("verdict", Verdict)
def test_the_page_has_all_of_the_answer(
    verdict: Verdict, answered: Callable[[Verdict], Answer], tmp_path: Path
) -> None:
    answer = answered(verdict)
    write_page(answer, tmp_path / "answer.html")
    written = (tmp_path / "answer.html").read_text("utf-8")
    for text in (answer.question, answer.short, *answer.paragraphs, *answer.findings.limits, *answer.facts.values()):
        assert text in unescape(written)
    assert "<b>" not in written
    assert written.count("data:image/png") == (1 + len(answer.shown.samples) if answer.shown else 0)
    [style] = re.findall(r"<style>(.*?)</style>", written, re.S)
    [policy] = re.findall(r'Content-Security-Policy" content="(.*?)"', written)
    assert unescape(policy) == f"default-src 'none'; img-src data:; style-src {allowed(style)}"
    assert all(place.startswith("data:") for place in re.findall(r'(?:src|href)="(.*?)"', written))
