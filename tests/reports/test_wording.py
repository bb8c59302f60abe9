"""The sentences about an audit: what they claim follows from the values."""

import math
import re
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist

import pytest

from invmm_eval.reports.findings import Findings, find
from invmm_eval.reports.wording import LIMITS, meaning, one_in, population_limit
from invmm_eval.search.result import Status
from invmm_eval.statistics.bound import least_share
from invmm_eval.statistics.response import Outcome, Response
from tests.helpers import audits


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([], "This audit has no results yet."),
        ([None, None], "None of the 2 images could be measured."),
        (
            [math.inf, math.inf, None],
            "None of the 2 images was replicated within the budget. This does not rule out memorization.",
        ),
        ([math.inf], "The image was not replicated within the budget. This does not rule out memorization."),
        ([0.5, math.inf], "1 of 2 images was replicated, but only from noise that the search chose."),
        ([0.5, 0.6], "2 of 2 images were replicated, but only"),
        (
            [0.01, 0.5, math.inf, None],
            "1 of 3 images is memorized: ordinary sampling with its prompt may produce copies.",
        ),
        ([0.01, 0.02], "2 of 2 images are memorized: ordinary sampling with their prompts may"),
    ],
)
def test_the_headline_claims_what_the_values_allow(values: list[float | None], text: str, tmp_path: Path) -> None:
    findings = audits.of_values(tmp_path, values)
    assert findings.headline.startswith(text)
    assert ("memorized" in findings.headline) == bool(findings.telling)


def test_the_verdict_gives_counts_limit_smallest_value_and_failures(found: Findings) -> None:
    counts, limit, smallest, others, rest, failure = found.verdict
    assert counts.startswith("Of 7 images, 4 were replicated: the search found noise from which all 8 samples")
    assert counts.endswith(
        "similarity of 0.5 to the image (sscd). 2 were not replicated within 200 steps. 1 could not be measured."
    )
    assert limit == population_limit(4, 6)
    assert smallest.startswith(
        f"The smallest value is that of {audits.NAMES[0]}. Its InvMM is 0.02 nats per dimension, 5.12 nats in total"
    )
    assert others.startswith("For 3 of the replicated images the value is above 20 nats in total.")
    assert "not what the model memorized" in rest
    assert failure == "1 failed: The image <b>cannot</b> be used: it is damaged."


def test_images_that_failed_for_one_reason_are_one_paragraph(tmp_path: Path) -> None:
    failures = [audits.result(index, Status.FAILED) for index in range(3)]
    failures = [(replace(result, traceback="Traceback ..."), target) for result, target in failures]
    findings = find(audits.write(tmp_path, failures))
    reason, hint, conclusion = findings.verdict
    assert reason == "3 failed: The image <b>cannot</b> be used: it is damaged."
    assert hint.startswith("The tracebacks of unexpected errors are in results.jsonl; with --debug")
    assert conclusion == "Nothing can be concluded about memorization."
    assert findings.public().verdict == (conclusion,)
    assert audits.of_values(tmp_path / "empty", []).verdict == ()


def test_the_meaning_of_one_result(found: Findings) -> None:
    text = meaning(found.results[0])
    samples = float(text.split("one copy in ")[1].split(" ")[0].replace(",", ""))
    assert 1 <= samples * least_share(5.12) < 1.1
    assert "with the same prompt at guidance 3" in text
    assert meaning(found.results[1]).endswith("38.4 nats in total: too many to predict copies in ordinary sampling.")
    assert "in 200 steps" in meaning(found.results[4])
    assert meaning(found.results[6]).startswith("The image could not be measured: The image <b>cannot</b> be used")


@pytest.mark.parametrize(
    ("nats", "text"),
    [(0.0, "1.2"), (1.0, "4.3"), (3.0, "41"), (10.0, "97,000"), (13.0, "2.7 million"), (20.0, "6.5 billion")],
)
def test_samples_per_copy_have_two_digits_rounded_up(nats: float, text: str) -> None:
    result, _ = audits.result(0, Status.REPLICATED, nats / audits.DIMENSIONS)
    assert f"one copy in {text} " in meaning(result)
    assert one_in(1e-17) == "more than a trillion"


def test_a_search_by_dose_states_its_curve_and_what_its_dose_implies() -> None:
    """Twenty samples within two standard deviations, half of them replicas: nearly as in plain sampling."""
    response = Response(tuple(Outcome(0.1 * place, place >= 10) for place in range(20)))
    result = replace(audits.result(0, Status.REPLICATED, 0.01)[0], estimates=audits.estimates(response))
    text = re.search(
        r"about one copy in ([\d.,]+) samples \(one in ([\d.,]+) to ([\d.,]+), 95% interval\)\. At ([\d.]+) nats "
        r"\(.* to ([\d.]+)\) 90% of the samples are copies, which implies at least one copy in ([\d.]+) ordinary",
        meaning(result),
    )
    assert text
    about, best, worst, nats, high, samples = (float(number.replace(",", "")) for number in text.groups())
    share, dose, plain = response.plain(), response.dose(0.9), NormalDist()
    assert share
    assert (1 / about, 1 / worst, 1 / best) == pytest.approx(share, rel=0.1)
    assert (nats, high) == pytest.approx((dose.nats, dose.high), rel=0.1)
    assert plain.cdf(plain.inv_cdf(0.9) - math.sqrt(2 * high)) == pytest.approx(1 / samples, rel=0.1)
    far = audits.estimates(Response(tuple(Outcome(20 + 0.1 * place, place >= 10) for place in range(20))))
    assert "too many to predict how often ordinary sampling" in meaning(replace(result, estimates=far))
    partly = meaning(replace(result, status=Status.EXHAUSTED))
    assert partly.startswith("The image was not replicated in")
    assert "but some samples are copies" in partly
    assert "50% of the samples are copies" in partly


def test_the_limits_are_those_of_the_readme() -> None:
    text = " ".join((Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8").replace("*", "").split())
    assert len(LIMITS) == 6
    for words in ("does not prove that an image was not memorized", "The value is noisy", "not a membership test"):
        assert words in text
        assert any(words in limit for limit in LIMITS)
