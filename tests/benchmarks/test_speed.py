"""The plain procedure of the benchmark is written apart from the engine: both must find the same."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from benchmarks.speed import Counted, bare, measured, memorized_and_new, plain, planned, targets_of, with_gradients
from invmm_eval.audits.auditing import Plan
from invmm_eval.noise.gaussian import diagonal
from invmm_eval.search.result import Status
from invmm_eval.similarity.pixel_cosine import PixelCosine
from tests.helpers.exact import QUICK, Choosing, Mixture, pictures, targets

PICTURES = pictures(3)
IMAGES = torch.cat([PICTURES[:2], pictures(1, seed=99)])


def plan(backbone: Any, similarity: PixelCosine, **changes: Any) -> Plan:
    return Plan(backbone, similarity, diagonal(), replace(QUICK, **changes), 3, {})


@pytest.mark.parametrize(
    ("backbone", "guidance"), [(Mixture(PICTURES), (1.0,)), (Choosing(PICTURES), (1.0, 3.0))], ids=["plain", "guided"]
)
def test_the_plain_procedure_and_the_engine_agree(
    backbone: Any, guidance: tuple[float, ...], cosine: PixelCosine
) -> None:
    asked = plan(backbone, cosine, guidance=guidance, max_steps=100)
    ours = measured(asked, targets(IMAGES), batch_size=3)
    theirs = [plain(backbone, target, asked) for target in targets(IMAGES)]
    assert {Status.REPLICATED, Status.EXHAUSTED} == {result.status for result in ours}
    for a, b in zip(ours, theirs, strict=True):
        assert (a.status, a.steps) == (b.status, b.steps)
        assert a.kl == pytest.approx(b.kl, rel=1e-4)


def test_they_agree_on_the_guided_model_whose_prompt_is_searched() -> None:
    quick: dict[str, Any] = {"max_steps": 4, "check_every": 2, "draws": 4, "check_images": 2, "sampler_steps": 3}
    for threshold, status in ((-1.0, Status.REPLICATED), (1.1, Status.EXHAUSTED)):
        asked = planned("guided", "cpu", **quick, threshold=threshold)
        memorized, new = memorized_and_new("guided")
        chosen = targets_of([memorized[0], new[0]], asked.backbone)
        slow = with_gradients(planned("guided", "cpu").backbone)
        ours = measured(asked, chosen, batch_size=2)
        for a, b in zip(ours, [plain(slow, target, asked) for target in chosen], strict=True):
            assert (a.status, a.steps) == (b.status, b.steps) == (status, a.steps)
            assert a.kl == pytest.approx(b.kl, rel=1e-3)


def test_the_bare_network_sees_as_many_rows_as_the_audit(cosine: PixelCosine) -> None:
    model = Mixture(PICTURES)
    asked = Counted(model)
    measured(plan(model, cosine, max_steps=20), targets(IMAGES[2:]), asked)
    assert sum(asked.stepped) == 20 * QUICK.draws
    seen = model.rows_seen.copy()
    model.rows_seen.clear()
    bare(model, asked)
    assert sorted(model.rows_seen) == sorted(seen)
