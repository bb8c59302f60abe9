"""What a result says, and that it can be kept."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from invmm_eval.errors import InvMMError
from invmm_eval.search.result import CONFIRMATION, DOSE_RESPONSE, PLAIN_SHARE, Check, Point, Result, Status, rank
from invmm_eval.search.status import Verdict
from invmm_eval.statistics.importance import PlainShare
from invmm_eval.statistics.response import Count, Outcome, Response

CHECK = Check(
    passed=True,
    similarities={1.0: (0.2,), 2.5: (0.9, 0.8)},
    samples={1.0: torch.zeros(1, 1, 2, 2, dtype=torch.uint8), 2.5: torch.full((2, 1, 2, 2), 9, dtype=torch.uint8)},
)
RESULT = Result(
    index=3,
    name="a\nname",
    digest="ab" * 32,
    status=Status.REPLICATED,
    kl=0.25,
    dimensions=16,
    steps=100,
    check=CHECK,
    noise={"mu": torch.arange(4.0).view(1, 2, 2), "logvar": torch.zeros(())},
    condition={"logits": torch.ones(5)},
    prompt="a red balloon",
    trace=(Point(50, 0.1, 0.2, 1.0, 0.3), Point(100, 0.05, 0.25, 1.1, 0.8)),
    seconds_steps=1.5,
    seconds_checks=0.25,
)
OUTCOMES = (Outcome(0.5, False), Outcome(1.5, False), *(Outcome(place / 2, True) for place in range(4, 13)))
BY_DOSE = replace(
    RESULT,
    estimates={
        DOSE_RESPONSE: Response(OUTCOMES).values(),
        CONFIRMATION: {"hits": 58, "drawn": 64},
        "of a plugin": {"share": 0.25, "interval": [0.1, 0.4]},
    },
)
FAILED = Result(index=0, name="x", digest="", status=Status.FAILED, error="It broke.", traceback="Traceback ...")


@pytest.mark.parametrize("result", [RESULT, BY_DOSE, replace(RESULT, status=Status.EXHAUSTED), FAILED])
def test_a_record_is_strict_json(result: Result) -> None:
    record = json.loads(json.dumps(result.record(), allow_nan=False))
    assert record["status"] == result.status
    assert (record["invmm"] is None) == (result.status is not Status.REPLICATED)
    assert record["kl"] == result.kl


def test_a_record_of_format_1_is_read() -> None:
    record = BY_DOSE.record()
    outcomes = record.pop("estimates")[DOSE_RESPONSE]["outcomes"]
    record.pop("traceback")
    old = Result.from_record({**record, "outcomes": outcomes})
    assert (old.response, old.confirmed, old.traceback) == (BY_DOSE.response, Count(58, 64), None)
    assert Result.from_record({**record, "outcomes": [], "confirmed": None}).estimates == {}


def test_values_of_earlier_estimates_of_the_share_are_read() -> None:
    """The first version wrote no upper limit; an upper limit below the estimate ends it."""
    old = replace(RESULT, estimates={PLAIN_SHARE: {"share": 0.02, "low": 0.01, "nats": 3.9, "copies": 9}})
    assert old.plain_share == PlainShare(0.02, 0.01, 1.0)
    assert old.record()["plain_share"] == [0.02, 0.01, 1.0]
    assert old.record()["verdict"] == "memorized"
    new = replace(RESULT, estimates={PLAIN_SHARE: {"share": 0.02, "low": 0.01, "high": 0.005, "copies": 9}})
    assert new.plain_share == PlainShare(0.005, 0.005, 0.005)
    assert RESULT.plain_share is None


def test_results_are_ranked_by_verdict_then_share_then_value() -> None:
    def shared(share: float) -> Result:
        return replace(RESULT, estimates={PLAIN_SHARE: {"share": share, "low": share / 2, "copies": 9}})

    exhausted = replace(RESULT, status=Status.EXHAUSTED)
    ranked = [shared(0.1), shared(0.01), shared(1e-9), replace(RESULT, kl=0.01), RESULT, exhausted, FAILED]
    assert sorted(ranked[1::2] + ranked[::2], key=rank) == ranked
    assert [result.verdict for result in ranked] == [
        *[Verdict.MEMORIZED] * 2, *[Verdict.REPLICABLE] * 3, Verdict.NOT_REPLICATED, Verdict.FAILED,
    ]  # fmt: skip


def test_a_record_has_the_doses_and_the_rate() -> None:
    record = BY_DOSE.record()
    assert record["ed50"] == list(BY_DOSE.ed50 or ())
    assert record["ed90"] == list(BY_DOSE.ed90 or ())
    assert record["ed50"][0] < record["ed90"][0]
    assert record["confirmed"] == [58, 64]
    assert record["rate"] == 58 / 64
    assert record["rate_interval"][0] < 58 / 64 < record["rate_interval"][1]
    assert RESULT.record()["ed50"] is RESULT.record()["rate"] is None


@pytest.mark.parametrize("result", [RESULT, BY_DOSE, FAILED])
def test_saved_and_loaded(result: Result, tmp_path: Path) -> None:
    result.save(tmp_path / "r.safetensors")
    loaded = Result.load(tmp_path / "r.safetensors")
    assert loaded.record() == result.record()
    assert loaded.trace == result.trace
    assert (loaded.estimates, loaded.traceback) == (result.estimates, result.traceback)
    for kept, expected in ((loaded.noise, result.noise), (loaded.condition, result.condition)):
        assert kept.keys() == expected.keys()
        assert all(torch.equal(kept[name], expected[name]) for name in kept)
    if result.check:
        assert loaded.check is not None
        assert all(torch.equal(loaded.check.samples[scale], result.check.samples[scale]) for scale in (1.0, 2.5))


def test_a_file_that_is_no_result(tmp_path: Path) -> None:
    RESULT.save(tmp_path / "r.safetensors")
    (tmp_path / "cut").write_bytes((tmp_path / "r.safetensors").read_bytes()[:100])
    for name in ("missing", "cut"):
        with pytest.raises(InvMMError, match="not a saved result"):
            Result.load(tmp_path / name)
