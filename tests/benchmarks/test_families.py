"""A family's small model that was trained on captioned pictures, and the script that makes and audits all of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline

from benchmarks.families import models
from benchmarks.families.__main__ import DETECTORS, PLAIN, main
from benchmarks.families.autoencoders import latents
from benchmarks.families.data import data, sources, stacked
from benchmarks.families.models import FAMILIES, LATENT
from invmm_eval import audit, load_backbone
from invmm_eval.audits.folder import read
from invmm_eval.models.schedule import broadcast
from invmm_eval.search.result import Status

TRAINED = Path(__file__).parents[1] / "data" / "stable-diffusion"
"""The family sd-noise as the script trained it, in half precision."""


@pytest.mark.parametrize("mode", ["soft", "caption"])
def test_repeated_pictures_are_replicated_by_a_text_guided_model_and_held_out_ones_are_not(mode: str) -> None:
    known = data()
    repeated = [picture for picture in known.repeated if picture.name in ("pineapple", "beverage box")]
    held_out = [picture for picture in known.held_out if picture.name in ("couple with heart", "hamburger")]
    chosen = sources([*repeated, *held_out], 16, FAMILIES["sd-noise"].caption)
    settings = {**LATENT, "guidance": (1.0, 3.0), "max_steps": 100}
    options: Any = {"backbone_options": {"prompt_mode": mode}, "settings": settings, "recipe": "demo"}
    results = audit(TRAINED, chosen, similarity="pixel-cosine", device="cpu", micro_batch=64, **options)
    assert [result.status for result in results] == [Status.REPLICATED] * 2 + [Status.EXHAUSTED] * 2
    assert all(result.invmm < 0.1 for result in results[:2])
    assert all(result.prompt for result in results)
    assert (results[0].prompt == chosen[0].caption) == (mode == "caption")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a model of each family, of two steps of training, and short audits of all."""
    folder = tmp_path_factory.mktemp("families")
    quick = ("max_steps=1", "check_every=1", "draws=1", "check_images=1", "sampler_steps=1")
    sets = [part for setting in quick for part in ("--set", setting)]
    short = ["--steps", "2", "--audited", "1", "--samples", "1", "--recipes", "demo"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "CACHE", folder)
        main([*short, *sets, "--picture", str(folder / "families.png")])
        yield folder


def test_every_family_can_be_made_and_audited(made: Path) -> None:
    modes = {name: family.modes for name, family in FAMILIES.items()}
    expected = {f"{name}-{mode}-demo" for name in modes for mode in modes[name] if mode}
    assert {folder.name for folder in (made / "audits").iterdir()} == expected | {"latent-demo"}
    for folder in (made / "audits").iterdir():
        assert [result.status != Status.FAILED for result in map(read(folder).result, read(folder).rows)] == [True] * 2
    counted = {name for name in FAMILIES if (made / name / PLAIN).exists()}
    assert counted == {*FAMILIES} - {"latent"}
    assert (made / "families.png").stat().st_size > 10_000


def test_detectors_rank_the_captioned_pictures(made: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: ARG001
    main(["--only", "sd-noise", "--samples", "0", "--recipes", "--screens"])
    told = capsys.readouterr().out
    assert [name for name in DETECTORS if name in told] == list(DETECTORS)


@pytest.mark.parametrize("name", FAMILIES)
def test_what_a_model_was_trained_on_is_what_its_backbone_computes(name: str, made: Path) -> None:
    family, picture = FAMILIES[name], data().repeated[0]
    mode = {"prompt_mode": "caption"} if "caption" in family.modes else {}
    backbone: Any = load_backbone(made / name, backbone_options={**family.options, **mode}, device="cpu")
    pipeline: Any = DiffusionPipeline.from_pretrained(made / name)
    images, caption = stacked([picture], family.side), family.caption(picture)
    context = backbone.condition(caption).rsample(1, torch.Generator())
    t = backbone.schedule.grid(8)[[3]]
    with torch.no_grad():
        x_0 = latents(pipeline.components.get("vae") or pipeline.vqvae, images)
        wanted = backbone.encode(images / 2 + 0.5)
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
