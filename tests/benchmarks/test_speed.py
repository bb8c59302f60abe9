"""The plain protocol of the benchmark is written apart from the engine: both must find the same."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from benchmarks.common.counting import counted
from benchmarks.common.plain import plain, with_gradients
from benchmarks.common.procedure import Setup
from benchmarks.speed import bare, memorized_and_new, planned, targets_of
from invmm_eval.search.result import Status
from tests.helpers.exact import QUICK, Choosing, Mixture, pictures, targets

PICTURES = pictures(3)
IMAGES = torch.cat([PICTURES[:2], pictures(1, seed=99)])


def setup(backbone: Any, **changes: Any) -> Setup:
    return Setup(backbone, replace(QUICK, **changes), seed=3)


@pytest.mark.parametrize(
    ("backbone", "guidance"), [(Mixture(PICTURES), (1.0,)), (Choosing(PICTURES), (1.0, 3.0))], ids=["plain", "guided"]
)
def test_the_plain_protocol_and_the_engine_agree(backbone: Any, guidance: tuple[float, ...]) -> None:
    planned = setup(backbone, guidance=guidance, max_steps=100)
    ours = planned.measure(targets(IMAGES), batch_size=3)
    theirs = [plain(planned, target) for target in targets(IMAGES)]
    assert {Status.REPLICATED, Status.EXHAUSTED} == {result.status for result in ours}
    for a, b in zip(ours, theirs, strict=True):
        assert (a.status, a.steps) == (b.status, b.steps)
        assert a.kl == pytest.approx(b.kl, rel=1e-4)


def test_they_agree_on_the_guided_model_whose_prompt_is_searched() -> None:
    quick: dict[str, Any] = {"max_steps": 4, "check_every": 2, "draws": 4, "check_images": 2, "sampler_steps": 3}
    for threshold, status in ((-1.0, Status.REPLICATED), (1.1, Status.EXHAUSTED)):
        ready = planned("guided", "cpu", **quick, threshold=threshold)
        memorized, new = memorized_and_new("guided")
        chosen = targets_of([memorized[0], new[0]], ready.backbone)
        slow = replace(ready, backbone=with_gradients(planned("guided", "cpu").backbone))
        ours = ready.measure(chosen, batch_size=2)
        for a, b in zip(ours, [plain(slow, target) for target in chosen], strict=True):
            assert (a.status, a.steps) == (b.status, b.steps) == (status, a.steps)
            assert a.kl == pytest.approx(b.kl, rel=1e-3)


def test_the_bare_network_sees_as_many_rows_as_the_audit() -> None:
    model = Mixture(PICTURES)
    counting, counter = counted(model)
    setup(counting, max_steps=20).measure(targets(IMAGES[2:]))
    assert counter.rows_with == 20 * QUICK.draws
    seen = model.rows_seen.copy()
    model.rows_seen.clear()
    bare(model, counter)
    assert sorted(model.rows_seen) == sorted(seen)
