"""The answer says what the result says, and no more."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from invmm_eval.reports.answer.words import Answer
from invmm_eval.reports.wording import meaning
from invmm_eval.search.status import Verdict
from tests.reports.answer.conftest import NAME

Answered = Callable[[Verdict], Answer]


@pytest.mark.parametrize(
    ("verdict", "short"),
    [
        (Verdict.MEMORIZED, "Yes: plain sampling gives copies of it."),
        (Verdict.REPLICABLE, "Not shown: copies were found, but only from noise that the search chose."),
        (Verdict.NOT_REPLICATED, "No copy was found. This does not rule out that it was memorized."),
        (Verdict.FAILED, "It could not be measured."),
    ],
)
def test_the_short_answer_follows_the_verdict(verdict: Verdict, short: str, answered: Answered) -> None:
    answer = answered(verdict)
    assert answer.question == f"Did org/painter@v1.0 memorize {NAME}?"
    assert answer.short == short
    assert answer.paragraphs[0] == (
        "The image <b>cannot</b> be used: it is damaged." if verdict is Verdict.FAILED else meaning(answer.result)
    )


def test_what_is_a_copy_and_how_many_samples_are_is_said(answered: Answered) -> None:
    _, rule, count, *_ = answered(Verdict.MEMORIZED).paragraphs
    assert rule == "A sample is a copy if its similarity to the image (sscd) is at least 0.5."
    assert count.startswith("8 of the 8 samples shown are copies. ")
    assert "0 of the 8 samples shown are copies." in " ".join(answered(Verdict.NOT_REPLICATED).paragraphs)


def test_the_screen_is_a_ratio_of_errors_and_called_a_hint(answered: Answered) -> None:
    answer = answered(Verdict.MEMORIZED)
    *_, told, after = answer.paragraphs
    assert after.startswith("What to do: ")
    assert answered(Verdict.NOT_REPLICATED).paragraphs[-1].startswith("To look further, ")
    assert f"{math.exp(-0.7):.3g} times its error for the mirrored image" in told
    assert told.startswith("A hint from before the search: ")
    assert "This is no evidence" in told
    failed = replace(answer, score=replace(answer.score, score=None, error="It is too small."))
    assert failed.paragraphs[-2] == "The screen failed: It is too small."


def test_of_a_picture_that_could_not_be_measured_the_reason_alone_is_told(answered: Answered) -> None:
    answer = answered(Verdict.FAILED)
    assert answer.shown is None
    error = f"The image '/home/me/{NAME}' cannot be used."
    results = answer.findings.results.changed(lambda result: replace(result, error=error))
    told = replace(answer, findings=replace(answer.findings, results=results))
    assert told.paragraphs == ("The image cannot be used.",)
    assert told.facts.keys() == answer.findings.facts.keys()


def test_the_facts_identify_picture_model_and_settings(answered: Answered) -> None:
    answer = answered(Verdict.MEMORIZED)
    facts = answer.facts
    assert facts["Image (SHA-256)"] == answer.result.digest
    assert facts["Model"] == "org/painter@v1.0"
    assert facts["Plain samples"] == "1 in 39 (1 in 27 to 1 in 58)"
    assert (facts["Steps taken"], facts["Steps"][:9]) == ("100", "at most 4")
    assert facts["Similarity"].startswith("sscd")
    assert facts["Measured"].endswith(" UTC")
