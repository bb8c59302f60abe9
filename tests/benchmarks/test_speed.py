"""The plain protocol of the benchmark is written apart from the engine: both must find the same."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.common.plain import plain, with_gradients
from benchmarks.common.plans import measure, planned
from benchmarks.speed import Recorded, bare, fifth, main, memorized_and_new, priced, targets_of
from invmm_eval.audits.plan import Plan
from invmm_eval.search.result import Status
from tests.helpers.exact import QUICK, Choosing, Mixture, pictures, targets

PICTURES = pictures(3)
IMAGES = torch.cat([PICTURES[:2], pictures(1, seed=99)])


def setup(backbone: Any, **changes: Any) -> Plan:
    return planned(backbone, replace(QUICK, **changes), seed=3)


@pytest.mark.parametrize(
    ("backbone", "guidance"), [(Mixture(PICTURES), (1.0,)), (Choosing(PICTURES), (1.0, 3.0))], ids=["plain", "guided"]
)
def test_the_plain_protocol_and_the_engine_agree(backbone: Any, guidance: tuple[float, ...]) -> None:
    plan = setup(backbone, guidance=guidance, max_steps=100)
    ours = measure(plan, targets(IMAGES), batch_size=3)
    theirs = [plain(plan, target) for target in targets(IMAGES)]
    assert {Status.REPLICATED, Status.EXHAUSTED} == {result.status for result in ours}
    for a, b in zip(ours, theirs, strict=True):
        assert (a.status, a.steps) == (b.status, b.steps)
        assert a.kl == pytest.approx(b.kl, rel=1e-4)


def test_they_agree_on_the_guided_model_whose_prompt_is_searched() -> None:
    quick: dict[str, Any] = {"max_steps": 4, "check_every": 2, "draws": 4, "check_images": 2, "sampler_steps": 3}
    for threshold, status in ((-1.0, Status.REPLICATED), (1.1, Status.EXHAUSTED)):
        ready = fifth("guided", "cpu", **quick, threshold=threshold)
        chosen = targets_of([group[0] for group in memorized_and_new("guided").values()], ready.backbone)
        slow = replace(ready, backbone=with_gradients(fifth("guided", "cpu").backbone))
        ours = measure(ready, chosen, batch_size=2)
        for a, b in zip(ours, [plain(slow, target) for target in chosen], strict=True):
            assert (a.status, a.steps) == (b.status, b.steps) == (status, a.steps)
            assert a.kl == pytest.approx(b.kl, rel=1e-3)


def test_the_bare_network_sees_as_many_rows_as_the_audit() -> None:
    model = Mixture(PICTURES)
    recorded = Recorded(model)
    measure(setup(recorded, max_steps=20), targets(IMAGES[2:]))
    assert sum(len(x_t) for x_t, _, _, gradient in recorded.calls if gradient) == 20 * QUICK.draws
    assert priced(recorded.calls) == recorded.rows == priced(recorded.calls, 1) + 2 * 20 * QUICK.draws
    seen = model.rows_seen.copy()
    model.rows_seen.clear()
    bare(model, recorded.calls)
    assert model.rows_seen == seen


def test_the_network_is_timed_by_rows_and_size(tmp_path: Path) -> None:
    main(["--quick", "--device", "cpu", "--only", "network", "--json", str(tmp_path / "speed.json")])
    figures = json.loads((tmp_path / "speed.json").read_text())["network"]
    assert len(figures) == 4 * 6 * 2
    assert all(value > 0 for value in figures.values())
