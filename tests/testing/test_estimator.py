"""Each promise of an estimator is broken by a fake that breaks no other."""

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch

from invmm_eval.plugin import Estimator, Found
from invmm_eval.search.estimators import Confirmation, DoseResponse, Samples
from invmm_eval.search.proposals import Proposal
from invmm_eval.search.result import Status
from invmm_eval.testing import BrokenPromise, check_estimator
from invmm_eval.testing.estimator import simulated
from tests.helpers.breaches import Breach, sets


class AtOnce:
    """It returns its value at once."""

    name, fields = "half", {"half": "one half"}

    def __call__(self, _: Found) -> Mapping[str, Any]:
        return {"half": 0.5}


class Elsewhere:
    """It awaits something else than samples."""

    name, fields = "half", {"half": "one half"}

    async def __call__(self, _: Found) -> Mapping[str, Any]:
        await asyncio.sleep(0)
        return {"half": 0.5}


class Good:
    """Counts hits among a few samples; has no value without a ray."""

    def __init__(self) -> None:
        self.name = "hit-rate"
        self.fields: Mapping[str, str] = {"hit_rate": "share of 50 samples that are copies"}
        self.change: Callable[[Any, Found], Any] = lambda values, _: values

    async def __call__(self, found: Found) -> Mapping[str, Any] | None:
        hits = (await found.sample(50)).hits
        values: Mapping[str, Any] | None = self.change(
            {"hit_rate": sum(hits) / len(hits)} if found.ray else None, found
        )
        return values


def returns(change: Callable[[Any, Found], Any]) -> Breach:
    return sets(change=change)


def explode(values: Any, found: Found) -> Any:
    with torch.no_grad():
        found.noise.parameters()["mu"].fill_(float("inf"))
    return values


BREACHES: list[tuple[str, Breach]] = [
    (r"name is ''", sets(name="")),
    (r"fields are \{\}", sets(fields={})),
    (r"fields are \['hit_rate'\]", sets(fields=["hit_rate"])),
    (r"fields are \{'hit_rate': ''\}", sets(fields={"hit_rate": ""})),
    (r"For an image that was replicated, with a ray, the estimator returns a float", returns(lambda *_: 0.5)),
    (
        r"without a ray, the estimator fails with TypeError .*\(a Found\)",
        returns(lambda _, found: {"hit_rate": len(vars(found.ray))}),
    ),
    (r"returns \['share'\]", returns(lambda *_: {"share": 0.5})),
    (r"JSON cannot store", returns(lambda *_: {"hit_rate": float("nan")})),
    (r"JSON cannot store", returns(lambda *_: {"hit_rate": torch.ones(())})),
    (r"KL that is not finite", returns(explode)),
    (r"returns other values when", returns(lambda *_: {"hit_rate": random.random()})),
]


@pytest.mark.parametrize(("sentence", "breach"), BREACHES)
def test_a_broken_promise_is_named(sentence: str, breach: Breach) -> None:
    with pytest.raises(BrokenPromise, match=sentence):
        check_estimator(breach(Good()))


@pytest.mark.parametrize(("estimator", "sentence"), [(AtOnce(), "async def __call__"), (Elsewhere(), "something else")])
def test_samples_are_what_is_awaited(estimator: Any, sentence: str) -> None:
    with pytest.raises(BrokenPromise, match=sentence):
        check_estimator(estimator)


@pytest.mark.parametrize("estimator", [Good(), DoseResponse(), Confirmation()])
def test_good_and_built_in_estimators_pass(estimator: Estimator) -> None:
    check_estimator(estimator)


def drawn(found: Found, n: int, *proposals: Proposal) -> Samples:
    async def ask() -> Samples:
        return await found.sample(n, *proposals)

    return asyncio.run(ask())


def test_most_simulated_samples_of_a_replicated_image_are_copies() -> None:
    rates = {
        status: sum(drawn(simulated(status), 1000).hits) / 1000 for status in (Status.REPLICATED, Status.EXHAUSTED)
    }
    assert rates[Status.REPLICATED] > 0.99
    assert rates[Status.EXHAUSTED] < 0.05


def test_a_simulated_search_knows_its_samples_of_the_ray_those_of_the_check_among_them() -> None:
    found = simulated(Status.REPLICATED)
    assert found.proposals
    assert len(found.outcomes) == found.recipe.check_images
    drawn(found, 3)
    drawn(found, 5, found.proposals.at(2.0))
    assert len(found.outcomes) == found.recipe.check_images + 3
    assert [one.drawn for one in found.shifted()] == [found.recipe.check_images, 3, 5]
    without = simulated(Status.REPLICATED, with_ray=False)
    drawn(without, 3)
    assert not without.outcomes
    assert not without.shifted()
