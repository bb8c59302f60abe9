"""The sentences of a comparison say what was found, what was left out, and no more."""

import math

import pytest

from invmm_eval.reports.comparison import Comparison
from invmm_eval.reports.comparison.words import change_text, paragraphs, probability, signed


def test_what_was_found_and_left_out_is_told(compared: Comparison) -> None:
    told = " ".join(paragraphs(compared))
    for sentence in (
        "2 of the 2 changes of verdict are clear: the intervals of both shares do not overlap.",
        "1 image has more than 1 copy in 100,000 plain samples in both audits. Their distance from plain noise changed "
        "by -0.163 nats (median): copies are 1.18 times as frequent as before.",
        "Verdicts: 1 became memorized, 1 no longer is. If both were equally likely, a split at least this uneven would "
        "have a probability of 1 (McNemar's exact test, two-sided).",
        "Distances: 3 of 5 images changed.",
        "Wilcoxon's signed-rank test on -ln(share), two-sided",
        "2 images failed in at least one audit: nothing is known about a change.",
        "1 image has a result in audit A only and is not compared: audit B did not search it.",
        "1 image has a result in audit B only and is not compared: audit A did not search it.",
        "1 image has no share in at least one audit: only verdicts are compared.",
    ):
        assert sentence in told


def test_changes_have_signs_and_open_ends(compared: Comparison) -> None:
    texts = {pair.either.name: change_text(pair) for pair in compared.pairs}
    assert texts["picture 0.png"] == ("-8.52", "at most -1.53")
    assert texts["picture 1.png"] == ("+8.52", "at least +1.53")
    assert texts["picture 2.png"] == ("-0.163", "-0.693 to +0.693")
    assert texts["picture 3.png"] == ("0", "")
    assert texts["picture 7.png"] == ("-", "")


@pytest.mark.parametrize(("value", "text"), [(0.0, "0"), (2.5, "+2.5"), (-1234.0, "-1,234"), (math.inf, "+∞")])
def test_a_change_has_its_sign(value: float, text: str) -> None:
    assert signed(value) == text


def test_small_probabilities_are_bounded() -> None:
    assert probability(0.0312) == "a probability of 0.031"
    assert probability(3e-9) == "a probability below 0.0001"
