"""Variants of the published search: what each may not do to the value, and the table by hand."""

from dataclasses import replace
from functools import cache

import pytest
import torch

from benchmarks import exact
from benchmarks.variants import Found, Variant, restarted, row, varied
from invmm_eval.recipe import Recipe
from tests.helpers.exact import targets

RECIPE: Recipe = replace(exact.RECIPE, max_steps=150, check_every=10, draws=8, sampler_steps=20)
FOUND = Found("published", "a", 0, 4.0, 0.95, 100)


@cache
def value(variant: Variant) -> Found:
    torch.manual_seed(0)
    model, images = exact.model()
    return varied(model, targets(images)[2], RECIPE, variant, seed=0)


@pytest.mark.parametrize(
    "variant",
    [
        Variant("published"),
        Variant("averaging", averaging=0.9),
        Variant("decay", decay=0.98),
        Variant("shrinking", shrinking=True),
        Variant("multiplier", multiplier=True),
    ],
    ids=lambda variant: variant.name,
)
def test_every_variant_finds_noise_that_replicates(variant: Variant) -> None:
    found = value(variant)
    assert found.nats is not None
    assert found.rate is not None
    assert found.rate > 0.7
    assert found.evaluations >= 3 * 10 * RECIPE.draws + RECIPE.check_images * RECIPE.sampler_steps


def test_tightening_starts_where_the_published_search_ends_and_lowers_the_value() -> None:
    published = value(Variant("published"))
    for variant in (Variant("shrinking", shrinking=True), Variant("multiplier", multiplier=True)):
        found = value(variant)
        assert published.nats is not None
        assert found.nats is not None
        assert found.nats < published.nats
        assert found.evaluations > published.evaluations


def test_what_is_not_replicated_has_no_value() -> None:
    model, images = exact.model()
    found = varied(model, targets(images)[0], replace(RECIPE, threshold=1.1), Variant("published"), seed=0)
    assert (found.nats, found.rate) == (None, None)


def test_restarts_are_medians_of_three() -> None:
    found = [replace(FOUND, seed=seed, nats=nats) for seed, nats in enumerate((1.0, None, 3.0, 2.0))]
    again = restarted([*found, replace(FOUND, image="b"), replace(FOUND, image="b"), replace(FOUND, image="b")])
    assert [(one.image, one.nats) for one in again] == [("a", 3.0), ("a", 2.0), ("a", 2.0), ("a", 3.0), ("b", 4.0)]
    assert {one.evaluations for one in again} == {300}


def test_a_row_by_hand() -> None:
    base = [replace(FOUND, nats=nats) for nats in (2.0, 4.0, 6.0)]
    ours = [replace(FOUND, variant="ours", nats=nats, rate=0.5, evaluations=150) for nats in (1.0, 1.0, 2.0, None)]
    ours[-1] = replace(ours[-1], rate=None)
    ours[0] = replace(ours[0], rate=0.9)
    assert row(ours, base) == {
        "variant": "ours",
        "replicated": 0.75,
        "median": 0.25,
        "range": 0.25,
        "range over median": 0.5,
        "confirmed": pytest.approx(1 / 3),
        "evaluations": 1.5,
    }
