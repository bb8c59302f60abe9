"""The answer about one picture of each verdict."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from invmm_eval.audits.folder.scores import Score
from invmm_eval.recipe import STABLE_DIFFUSION, fast
from invmm_eval.reports.answer.words import Answer
from invmm_eval.reports.findings import find
from invmm_eval.search.result import Result, Status
from invmm_eval.search.status import Verdict
from invmm_eval.search.target import Target
from tests.helpers import audits

CONFIG = {**audits.CONFIG, "recipe": asdict(fast(STABLE_DIFFUSION))}
NAME = "a <b>bold</b> $x$ name.png"


def found(verdict: Verdict) -> tuple[Result, Target]:
    status = {Verdict.NOT_REPLICATED: Status.EXHAUSTED, Verdict.FAILED: Status.FAILED}.get(verdict, Status.REPLICATED)
    result, target = audits.result(0, status, 0.02, NAME)
    return (audits.shared(result, **audits.KNOWN) if verdict is Verdict.MEMORIZED else result), target


@pytest.fixture
def answered(tmp_path: Path) -> Callable[[Verdict], Answer]:
    """Answers by their verdict."""

    def answer(verdict: Verdict) -> Answer:
        score = Score(0, NAME, "0" * 64, score=0.7)
        return Answer(find(audits.write(tmp_path / verdict.name, [found(verdict)], CONFIG)), score)

    return answer
