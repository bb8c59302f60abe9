"""On a GPU: values are those of the CPU, and the host waits where the pretend device says that it does."""

import warnings
from typing import Any

import pytest
import torch

from benchmarks.speed import targets_of
from invmm_eval.audits.plan import load_backbone
from invmm_eval.noise.gaussian import diagonal
from invmm_eval.recipe import DDPM, Recipe, fast
from invmm_eval.reference import MODEL, choose, pictures
from invmm_eval.search.engine import invert
from invmm_eval.search.plain_share import PlainShare
from invmm_eval.search.result import Result
from invmm_eval.search.target import Target
from invmm_eval.similarity.pixel_cosine import PixelCosine
from invmm_eval.testing import tiny

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

SHORT = Recipe.from_record(
    {"max_steps": 6, "check_every": 3, "draws": 2, "check_images": 2, "sampler_steps": 4, "threshold": 2.0}
)


def waits_of(model: str, recipe: Recipe) -> list[int]:
    """The host's waits from one step of a search of two images to the next, and those after the last."""
    pipeline: Any = tiny.tiny_ddpm() if model == "pixel" else tiny.tiny_stable_diffusion()
    backbone = load_backbone(pipeline, device="cuda")
    images = torch.randint(0, 256, (2, *backbone.image_shape), generator=torch.Generator().manual_seed(0))
    targets = [Target(image.to(torch.uint8), str(index)) for index, image in enumerate(images)]
    found: list[int] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")

        def count(_: object) -> None:
            found.append(sum("synchroniz" in str(warning.message) for warning in caught))
            caught.clear()

        torch.cuda.set_sync_debug_mode("warn")
        try:
            list(
                invert(
                    backbone,
                    targets,
                    PixelCosine(device=backbone.device),
                    diagonal(),
                    recipe=recipe,
                    batch_size=2,
                    on_step=count,
                )
            )
        finally:
            torch.cuda.set_sync_debug_mode("default")
        count(None)
    return found


@pytest.mark.parametrize(
    ("model", "changes"),
    [("pixel", {}), ("pixel", {"sampler": "dpm-solver++"}), ("guided", {"guidance": (1.0, 3.0)})],
)
def test_no_step_waits_and_a_check_waits_as_on_the_pretend_device(model: str, changes: dict[str, Any]) -> None:
    waits_of(model, SHORT)  # the libraries of CUDA wait when they are first used
    waits = waits_of(model, SHORT.changed(**changes))
    assert [waits[1], waits[2], waits[4], waits[5]] == [0] * 4
    assert waits[3] <= 5
    more = waits_of(model, SHORT.changed(sampler_steps=9, **changes))
    assert more[3] == waits[3]


def results_of(device: str, recipe: Recipe) -> list[Result]:
    backbone = load_backbone(MODEL, device=device)
    chosen = choose(pictures(), each=1, held_out=1)
    found = invert(
        backbone,
        targets_of(chosen, backbone),
        PixelCosine(device=backbone.device),
        diagonal(),
        recipe=recipe,
        batch_size=len(chosen),
        micro_batch=128,
        estimators=[PlainShare()],
    )
    return sorted(found, key=lambda result: result.index)


def test_a_fast_audit_gives_the_verdicts_and_shares_of_the_cpu() -> None:
    recipe = fast(DDPM).changed(threshold=0.9, plain=64)
    for ours, theirs in zip(results_of("cuda", recipe), results_of("cpu", recipe), strict=True):
        assert (ours.status, ours.verdict) == (theirs.status, theirs.verdict)
        assert ours.plain_share is not None
        assert theirs.plain_share is not None
        assert ours.plain_share.rate == pytest.approx(theirs.plain_share.rate, rel=0.3, abs=1e-6)


def test_a_published_step_gives_the_nats_of_the_cpu() -> None:
    recipe = DDPM.changed(max_steps=20, check_every=10, sampler_steps=10, draws=8, check_images=2, threshold=0.9)
    for ours, theirs in zip(results_of("cuda", recipe), results_of("cpu", recipe), strict=True):
        assert ours.status == theirs.status
        assert ours.kl == pytest.approx(theirs.kl, rel=1e-2)
