"""The price of a search is what the search costs."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from invmm_eval.audits.options import SCREEN_OPTIONS, SET_OPTIONS, Extent, Resources
from invmm_eval.audits.price import price, row_seconds, rows_of_search
from invmm_eval.audits.request import Request
from invmm_eval.recipe import DDPM, DEMO, Recipe, by_dose, fast
from invmm_eval.reports.price import lines
from invmm_eval.search.target import Target
from tests.helpers.audits import planned, run_plan
from tests.helpers.exact import Choosing, Mixture, pictures

KNOWN = pictures(3)
SHORT = replace(DDPM, max_steps=60, check_every=10, draws=4, check_images=4, sampler_steps=6)


@pytest.mark.parametrize("recipe", [SHORT, replace(SHORT, guidance=(1.0, 3.0)), by_dose(SHORT), fast(SHORT)])
def test_the_rows_are_those_of_real_searches(recipe: Recipe) -> None:
    plan = planned(Mixture(KNOWN[:1]), similarity="pixel-cosine", recipe=recipe)
    [known, new] = plan.measure([Target(KNOWN[0]), Target(KNOWN[2])])
    assert rows_of_search(plan, memorized=True)[0] == pytest.approx(known.rows, rel=0.35)
    assert rows_of_search(plan, memorized=False)[0] == pytest.approx(new.rows, rel=0.35)


def test_a_searched_prompt_is_counted() -> None:
    recipe = fast(replace(SHORT, guidance=(1.0, 3.0)))
    plan = planned(Choosing(KNOWN[:1]), similarity="pixel-cosine", recipe=recipe)
    [new] = plan.measure([Target(KNOWN[2])])
    rows, common = rows_of_search(plan, memorized=False, searches_prompt=True)
    assert rows == pytest.approx(new.rows, rel=0.1)
    assert common >= recipe.plain * recipe.sampler_steps


def test_a_long_search_is_not_run_to_its_end() -> None:
    model = Mixture(KNOWN[:1])
    plan = planned(model, similarity="pixel-cosine", recipe=replace(SHORT, max_steps=10_000))
    rows, _ = rows_of_search(plan, memorized=False)
    # each step, one sample at each check but the last, all at the last
    assert rows == 3 * 4 * 10_000 + (999 + 4) * 6


def test_the_probe_calls_the_model_at_least_twice_and_ends() -> None:
    model = Mixture(KNOWN)
    assert row_seconds(model, None, 5, seconds=0.02) > 0
    assert set(model.rows_seen) == {5}


def test_a_dry_run_says_what_each_phase_costs_and_writes_nothing(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("invmm_eval.audits.price.row_seconds", lambda *_, **__: 0.01)
    images = [torch.full((3, 8, 8), 20 * value, dtype=torch.uint8) for value in range(9)]
    short = {"max_steps": 10, "check_every": 5, "draws": 2, "check_images": 2, "sampler_steps": 3, "confirm": 2}
    options = {"settings": short}
    request = Request.of(
        tiny_folder, images, names=SET_OPTIONS, control=2, clean=3, recipe="demo", similarity="pixel-cosine", **options
    )
    found = price(request, screens=True)
    assert found.searches is not None
    assert (found.images, found.screen_rows, found.searches.images) == (9, 4, 5)
    clean = 3 * 2 * 10 + (1 + 2) * 3
    assert found.searches.clean_rows == clean
    said = " ".join(lines(found))
    assert "Screen: 36 network rows, about 0.36 s." in said
    assert f"If none is memorized, 5 images are searched: {36 + 5 * clean:,} rows together" in said
    both = 36 + 2 * clean
    for budget, told in (
        (both + 4 * clean, "suffices for the screen, the control sample and about 4 suspects"),
        ("0.001h", f"about {int((3.6 - 0.01 * both) / (0.01 * clean))} suspects that are not memorized"),
        (both - 1, "does not suffice for the screen and the control sample, which are completed all the same"),
    ):
        assert told in " ".join(lines(replace(found, extent=Extent(control=2, clean=3, budget=budget))))
    plain = " ".join(lines(price(replace(request, extent=None, resources=Resources(workers=2)))))
    assert f"{9 * clean:,} rows" in plain
    assert "2 processes" in plain
    screening = Request.of(tiny_folder, images, names=SCREEN_OPTIONS)
    assert not any("Search:" in line for line in lines(price(screening, screens=True, searches=False)))
    assert list(tmp_path.iterdir()) == []


def test_the_disk_is_what_the_folder_takes_at_most(tmp_path: Path) -> None:
    from invmm_eval.audits.images import Source
    from invmm_eval.audits.options import Output
    from invmm_eval.audits.price import _searches

    plan = planned(Mixture(KNOWN), similarity="pixel-cosine", recipe=DEMO.changed(max_steps=25))
    list(run_plan(plan, [Source(str(index), picture) for index, picture in enumerate(KNOWN)], out=tmp_path))
    size = sum(file.stat().st_size for part in ("tensors", "samples") for file in (tmp_path / part).rglob("*.*"))
    size += (tmp_path / "results.jsonl").stat().st_size
    assert size <= 3 * _searches(plan, Source("0", KNOWN[0]), None, 3, Output()).image_bytes <= 3 * size
