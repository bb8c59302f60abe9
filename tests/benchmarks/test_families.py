"""A family's small model that was trained on captioned pictures, and the script that makes and audits all of them."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import avg_pool2d

from benchmarks import families
from benchmarks.families import LATENT, Data, Picture
from invmm_eval.plugins.host import Host, host
from invmm_eval.reference import pictures
from invmm_eval.search.result import Result, Status
from invmm_eval.statistics.ranking import auc

TRAINED = Path(__file__).parents[1] / "data" / "stable-diffusion"
"""The family sd-noise as the script trained it, in half precision."""


def known() -> Data:
    """Pictures that come with the package, in the roles that the script gives them."""
    chosen = [
        (p.copies, Picture(p.name, avg_pool2d(torch.from_numpy(np.array(p.image)).permute(2, 0, 1) / 127.5 - 1, 2)))
        for p in pictures()
    ]
    held_out = [picture for copies, picture in chosen if copies == 0]
    return Data(
        repeated=[picture for copies, picture in chosen if copies >= 64],
        single=[picture for copies, picture in chosen if copies == 1],
        held_out=[p for p in held_out if p.name in ("couple with heart", "hamburger")],
        others=[],
    )


@pytest.mark.parametrize("mode", ["soft", "caption"])
def test_repeated_pictures_are_replicated_by_a_text_guided_model_and_held_out_ones_are_not(mode: str) -> None:
    data = known()
    repeated = [picture for picture in data.repeated if picture.name in ("pineapple", "beverage box")]
    sources = families.captioned([*repeated, *data.held_out])
    settings = {**LATENT, "guidance": (1.0, 3.0), "max_steps": 100}
    results: Sequence[Result] = families.audit(TRAINED, sources, {"prompt_mode": mode}, settings)
    assert [result.status for result in results] == [Status.REPLICATED] * 2 + [Status.EXHAUSTED] * 2
    assert all(result.invmm < 0.1 for result in results[:2])
    assert auc([r.invmm for r in results[:2]], [r.invmm for r in results[2:]]) == 1
    assert all(result.prompt for result in results)
    assert (results[0].prompt == sources[0].caption) == (mode == "caption")


def test_every_family_can_be_made_and_audited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugins = pytest.importorskip("invmm_sd3"), pytest.importorskip("invmm_flux")
    fresh = Host(entry_points=False)
    for plugin in plugins:
        fresh.register(plugin)
    host.cache_clear()
    monkeypatch.setattr("invmm_eval.audits.plan.host", lambda: fresh)
    monkeypatch.setattr(families, "CACHE", tmp_path)
    monkeypatch.setattr(families, "data", known)
    written = tmp_path / "families.json"
    quick = ("max_steps=1", "check_every=1", "draws=1", "check_images=1", "sampler_steps=1")
    sets = [part for setting in quick for part in ("--set", setting)]
    families.main(["--steps", "2", "--audited", "1", "--json", str(written), *sets, "--only", *families.FAMILIES])
    rows = json.loads(written.read_text())
    modes = {name: family.modes for name, family in families.FAMILIES.items()}
    assert [(row["family"], row["prompt"]) for row in rows] == [(name, m) for name in modes for m in modes[name]]
    assert all(one["status"] != Status.FAILED for row in rows for one in (*row["repeated"], *row["held_out"]))
