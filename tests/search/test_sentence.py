"""The sentence about one image claims what its share supports, rounded so that limits stay limits."""

import math
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from invmm_eval.search.result import CONFIRMATION, PLAIN_SHARE, Result, Status
from invmm_eval.search.sentence import one_in, plain_prompt, sentence, share_ends
from invmm_eval.search.status import Verdict
from invmm_eval.statistics.bound import least_share
from tests.helpers import audits
from tests.helpers.audits import KNOWN, shared

FOUND = replace(audits.result(0, Status.REPLICATED, 0.02)[0], prompt=None)
NONE = replace(audits.result(1, Status.EXHAUSTED)[0], prompt=None)


@pytest.mark.parametrize(
    ("share", "nearest", "less", "more"),
    [
        (1.0, "100 in 100", "100 in 100", "100 in 100"),
        (0.954, "95 in 100", "95 in 100", "96 in 100"),
        (0.5, "1 in 2", "1 in 2", "1 in 2"),
        (0.3, "1 in 3.3", "1 in 3.4", "1 in 3.3"),
        (0.1, "1 in 10", "1 in 10", "1 in 10"),
        (1 / 9.96, "1 in 10", "1 in 10", "1 in 9.9"),
        (1 / 38.6, "1 in 39", "1 in 39", "1 in 38"),
        (1 / 99.7, "1 in 100", "1 in 100", "1 in 99"),
        (1e-4, "1 in 10,000", "1 in 10,000", "1 in 10,000"),
        (1 / 12_345, "1 in 12,000", "1 in 13,000", "1 in 12,000"),
        (1 / 3_456_000, "1 in 3.5 million", "1 in 3.5 million", "1 in 3.4 million"),
        (1e-9, "1 in 1 billion", "1 in 1 billion", "1 in 1 billion"),
        (3e-16, "1 in 10^16", "1 in 10^16", "1 in 10^15"),
    ],
)
def test_shares_have_two_digits_and_limits_are_rounded_outwards(
    share: float, nearest: str, less: str, more: str
) -> None:
    assert (one_in(share), one_in(share, "less"), one_in(share, "more")) == (nearest, less, more)


@settings(derandomize=True, database=None)
@given(st.floats(2e-12, 1))
def test_rounding_never_crosses_a_limit(share: float) -> None:
    def value(text: str) -> float:
        a, b = text.replace(",", "").split(" in ")
        return float(a) / (float(b.split()[0]) * {"million": 1e6, "billion": 1e9}.get(b.split()[-1], 1))

    assert value(one_in(share, "less")) <= share * (1 + 1e-6)
    assert value(one_in(share, "more")) >= share * (1 - 1e-6)
    assert value(one_in(share)) == pytest.approx(share, rel=0.06)


def test_limits_that_say_nothing_are_left_out() -> None:
    assert share_ends(1 / 57.2, 1 / 27.9) == "1 in 27 to 1 in 58"
    assert (share_ends(0.01, 1), share_ends(0, 0.01), share_ends(0, 1)) == (
        "at least 1 in 100", "fewer than 1 in 100", "",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("result", "verdict", "said"),
    [
        (
            shared(FOUND, **KNOWN, relative_error=0.2),
            Verdict.MEMORIZED,
            "about 1 in 39 plain samples is a copy (95 % confidence: 1 in 27 to 1 in 58)",
        ),
        (
            shared(FOUND, **KNOWN),
            Verdict.MEMORIZED,
            "about 1 in 39 plain samples is a copy (95 % confidence: 1 in 27 to 1 in 58)",
        ),
        (
            shared(FOUND, **KNOWN, relative_error=0.7),
            Verdict.MEMORIZED,
            "between 1 in 58 and 1 in 27 plain samples is a copy (95 % confidence; estimate 1 in 39)",
        ),
        (
            shared(FOUND, share=1 / 38.6, low=1 / 57.2, copies=90),
            Verdict.MEMORIZED,
            "at least 1 in 58 plain samples is a copy (97.5 % confidence; estimate 1 in 39)",
        ),
        (
            shared(NONE, share=1 / 3.2, low=1 / 3.9, high=1 / 2.8, copies=90),
            Verdict.MEMORIZED,
            "about 1 in 3.2 plain samples is a copy (95 % confidence: 1 in 2.8 to 1 in 3.9)",
        ),
        (
            shared(FOUND, share=0.96, low=0.91, high=0.99, copies=150),
            Verdict.MEMORIZED,
            "about 96 in 100 plain samples are copies (95 % confidence: 99 in 100 to 91 in 100)",
        ),
        (
            shared(FOUND, share=1e-7, low=2e-8, high=1.0, copies=40),
            Verdict.REPLICABLE,
            "at least 1 in 50 million plain samples is a copy (97.5 % confidence; estimate 1 in 10 million)",
        ),
        (
            shared(NONE, high=9e-4, plain_copies=0, plain_samples=4096),
            Verdict.NOT_REPLICATED,
            "no copy in 4,096 plain samples (95 % confidence: fewer than 1 in 1,100)",
        ),
        (
            shared(NONE),
            Verdict.NOT_REPLICATED,
            "no copy found; how many plain samples are copies was not measured",
        ),
        (
            NONE,
            Verdict.NOT_REPLICATED,
            "no copy found; how many plain samples are copies was not measured",
        ),
        (FOUND, Verdict.REPLICABLE, "copies from chosen noise; how many plain samples are copies was not measured"),
        (
            replace(FOUND, status=Status.FAILED, error="It broke."),
            Verdict.FAILED,
            "could not be measured: It broke",
        ),
    ],
)
def test_the_sentence_and_the_verdict(result: Result, verdict: Verdict, said: str) -> None:
    assert (result.verdict, sentence(result)) == (verdict, said)


def test_a_measured_rate_gives_the_bound_and_a_supposed_one_does_not() -> None:
    confirmed = replace(FOUND, estimates={CONFIRMATION: {"hits": 62, "drawn": 64}})
    assert confirmed.confirmed
    assert confirmed.least_share == least_share(0.02 * audits.DIMENSIONS, confirmed.confirmed.interval[0])
    number = re.match(
        r"at least 1 in (\d+) plain samples is a copy \(97.5 % confidence; by the KL", sentence(confirmed)
    )
    assert number
    assert int(number[1]) == pytest.approx(1 / confirmed.least_share, rel=0.1)
    assert confirmed.verdict is Verdict.MEMORIZED
    assert replace(confirmed, kl=30 / audits.DIMENSIONS).verdict is Verdict.REPLICABLE
    assert FOUND.least_share == 0


def test_a_prompt_is_part_of_the_claim() -> None:
    guided = replace(shared(FOUND, **KNOWN), prompt="")
    assert sentence(guided).startswith("about 1 in 39 plain samples with a searched prompt at guidance 3 is a copy")
    captioned = replace(guided, prompt="a cat", caption="a cat")
    assert sentence(captioned).startswith("about 1 in 39 plain samples with its caption at guidance 3 is a copy")
    assert plain_prompt(replace(captioned, estimates={PLAIN_SHARE: {"plain_guidance": 0.0}})) == ""


def test_weights_that_vanish_are_still_copies() -> None:
    far = shared(FOUND, copies=40)
    assert far.plain_share
    assert far.plain_share.nats == math.inf
    assert replace(far, status=Status.EXHAUSTED).verdict is Verdict.REPLICABLE
    assert sentence(far).startswith("copies from chosen noise")
