"""The answer as a PDF is one page that holds all of it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from invmm_eval.reports.answer import Answer
from invmm_eval.reports.answer.sheet import sheet, write_sheet
from invmm_eval.search.status import Verdict


def words(answer: Answer) -> str:
    return " ".join(text.get_text() for text in sheet(answer).texts)


@pytest.mark.parametrize("verdict", Verdict)
def test_the_sheet_has_all_of_the_answer_on_one_page(
    verdict: Verdict, answered: Callable[[Verdict], Answer], tmp_path: Path
) -> None:
    answer = answered(verdict)
    told = "".join(words(answer).split())
    for text in (answer.question, answer.short, *answer.paragraphs, *answer.findings.limits, *answer.facts.values()):
        assert "".join(text.split()) in told
    assert len(sheet(answer).axes) == (1 + len(answer.shown.samples) if answer.shown else 0)
    write_sheet(answer, tmp_path / "answer.pdf")
    written = (tmp_path / "answer.pdf").read_bytes()
    assert written.startswith(b"%PDF")
    assert written.count(b"/Type /Page ") == 1


def test_a_long_text_is_smaller_and_stays_on_the_page(answered: Callable[[Verdict], Answer]) -> None:
    answer = answered(Verdict.FAILED)
    result = replace(answer.result, error="It cannot be read, for a reason that is long. " * 60)
    long = replace(answer, findings=replace(answer.findings, results=(result,)))
    figure = sheet(long)
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = [text.get_window_extent(renderer) for text in figure.texts]
    assert min(box.y0 for box in boxes) > 0
    assert max(box.x1 for box in boxes) < figure.bbox.x1
    assert float(figure.texts[0].get_fontsize()) < float(sheet(answer).texts[0].get_fontsize())
