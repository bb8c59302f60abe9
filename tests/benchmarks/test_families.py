"""A family's small model that was trained on captioned pictures, and the script that makes and audits all of them."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.families import training
from benchmarks.families.__main__ import PLAIN, main
from benchmarks.families.audits import audit
from benchmarks.families.data import data, stacked, targets
from benchmarks.families.training import FAMILIES, LATENT
from invmm_eval.audits.plan import load_backbone
from invmm_eval.models.schedule import broadcast
from invmm_eval.search.result import Result, Status

TRAINED = Path(__file__).parents[1] / "data" / "stable-diffusion"
"""The family sd-noise as the script trained it, in half precision."""


@pytest.mark.parametrize("mode", ["soft", "caption"])
def test_repeated_pictures_are_replicated_by_a_text_guided_model_and_held_out_ones_are_not(mode: str) -> None:
    known = data(16)
    repeated = [picture for picture in known.repeated if picture.name in ("pineapple", "beverage box")]
    held_out = [picture for picture in known.held_out if picture.name in ("couple with heart", "hamburger")]
    chosen = [*repeated, *held_out]
    sources = targets(chosen, [picture.name for picture in chosen])
    settings = {**LATENT, "guidance": (1.0, 3.0), "max_steps": 100}
    results: Sequence[Result] = audit(TRAINED, sources, {"prompt_mode": mode}, settings)
    assert [result.status for result in results] == [Status.REPLICATED] * 2 + [Status.EXHAUSTED] * 2
    assert all(result.invmm < 0.1 for result in results[:2])
    assert all(result.prompt for result in results)
    assert (results[0].prompt == sources[0].caption) == (mode == "caption")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a model of each family, of two steps of training, and the figures of short audits of all."""
    folder = tmp_path_factory.mktemp("families")
    quick = ("max_steps=1", "check_every=1", "draws=1", "check_images=1", "sampler_steps=1")
    sets = [part for setting in quick for part in ("--set", setting)]
    short = ["--steps", "2", "--audited", "1", "--samples", "1", "--recipes", "demo"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "CACHE", folder)
        main([*short, "--json", str(folder / "families.json"), *sets, "--only", *FAMILIES])
        yield folder


def test_every_family_can_be_made_and_audited(made: Path) -> None:
    rows = json.loads((made / "families.json").read_text())
    modes = {name: family.modes for name, family in FAMILIES.items()}
    assert [(row["family"], row["prompt"]) for row in rows] == [(name, m) for name in modes for m in modes[name]]
    assert all(one["status"] != Status.FAILED for row in rows for one in (*row["repeated"], *row["held_out"]))
    counted = {name for name in FAMILIES if (made / name / PLAIN).exists()}
    assert counted == {*FAMILIES} - {"latent"}


@pytest.mark.parametrize("name", FAMILIES)
def test_what_a_model_was_trained_on_is_what_its_backbone_computes(name: str, made: Path) -> None:
    family, picture = FAMILIES[name], data(FAMILIES[name].side).repeated[0]
    mode = {"prompt_mode": "caption"} if "caption" in family.modes else {}
    backbone: Any = load_backbone(made / name, backbone_options={**family.options, **mode}, device="cpu")
    pipeline: Any = training.load(made / name, torch.device("cpu"))
    images, caption = stacked([picture]), family.caption(picture)
    context = backbone.condition(caption).rsample(1, torch.Generator())
    t = backbone.schedule.grid(8)[[3]]
    with torch.no_grad():
        x_0, wanted = family.encode(pipeline, images), backbone.encode(images / 2 + 0.5)
        noise = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(0))
        alpha_t, sigma_t = (broadcast(level, x_0) for level in backbone.schedule(t))
        x_t = alpha_t * x_0 + sigma_t * noise
        output = family.output(pipeline, x_t, t, [caption])
        if name in ("latent", "sd-noise", "dit"):
            estimate = (x_t - sigma_t * output) / alpha_t
        else:
            estimate = (alpha_t if name == "sd-velocity" else 1) * x_t - sigma_t * output
        if wanted.shape != x_0.shape:  # FLUX.2 packs patches
            ordered, packed = backbone._latents.ordered, pipeline._pack_latents
            x_0, x_t, estimate = (ordered(packed(each)) for each in (x_0, x_t, estimate))
        torch.testing.assert_close(wanted, x_0, atol=1e-4, rtol=1e-4)
        found = backbone.predict_x0(x_t, t, context)
    torch.testing.assert_close(found, estimate, atol=1e-3, rtol=1e-3)
