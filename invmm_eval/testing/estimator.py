"""Checks that an estimator keeps the promises of :class:`~invmm_eval.plugin.Estimator`."""

import itertools
import json
from collections.abc import Mapping
from functools import partial
from inspect import iscoroutine
from typing import Any

import torch

from invmm_eval.noise.gaussian import diagonal
from invmm_eval.recipe import Recipe
from invmm_eval.search.estimators import Estimator, Found, Samples, Shifted
from invmm_eval.search.proposals import Proposal, Proposals
from invmm_eval.search.ray import Ray
from invmm_eval.search.result import Check, Status
from invmm_eval.statistics.response import Outcome
from invmm_eval.testing.promises import BrokenPromise, checked, promise, seeded, watched

SHAPE = (3, 4, 4)
THRESHOLD = 0.5
DOSES = {Status.REPLICATED: 20.0, Status.EXHAUSTED: 0.1}
"""KL of q in nats, at which most samples of the simulated model are copies, or hardly any."""


def check_estimator(estimator: Estimator) -> None:
    """Run an estimator on a simulated model, for images that were replicated and not, with and without a ray.

    Raises:
        BrokenPromise: Which promise is broken, and how to fix it, in one sentence.
    """
    checked(estimator, Estimator, "The estimator")
    fields = estimator.fields
    promise(
        isinstance(fields, Mapping)
        and bool(fields)
        and all(isinstance(text, str) and text for pair in fields.items() for text in pair),
        f"The estimator's fields are {fields!r}; map the name of each value to a short description.",
    )
    for status, with_ray in itertools.product(DOSES, (True, False)):
        what = f"For an image that was {status}, {'with' if with_ray else 'without'} a ray, the estimator"
        found = simulated(status, with_ray=with_ray)
        values = watched(partial(_finished, estimator, what), what)(found)
        _require_values(values, fields, what)
        promise(
            bool(found.noise.kl().isfinite()),
            f"{what} leaves q with a KL that is not finite; change q's parameters to finite values only.",
        )
        promise(
            _finished(estimator, what, simulated(status, with_ray=with_ray)) == values,
            f"{what} returns other values when it is called again; keep nothing between images, and draw random "
            "numbers from a generator with a fixed seed.",
        )


def _finished(estimator: Estimator, what: str, found: Found) -> Mapping[str, Any] | None:
    """The values of an estimator whose samples are there at once."""
    values = estimator(found)
    promise(iscoroutine(values), f"{what} returns at once; write async def __call__, and await found.sample(...).")
    try:
        values.send(None)
    except StopIteration as done:
        found_values: Mapping[str, Any] | None = done.value
        return found_values
    raise BrokenPromise(f"{what} awaits something else than found.sample(...); no other samples are drawn.")


def _require_values(values: Any, fields: Mapping[str, str], what: str) -> None:
    if values is None:
        return
    promise(isinstance(values, Mapping), f"{what} returns a {type(values).__name__}; return a mapping or None.")
    unknown = sorted(set(values).difference(fields), key=str)
    promise(not unknown, f"{what} returns {unknown}, which its fields do not name; add them to fields.")
    try:
        json.dumps(dict(values), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise BrokenPromise(
            f"{what} returns {dict(values)!r}, which JSON cannot store; return numbers that are finite, texts, lists "
            "and None."
        ) from error


def simulated(status: Status, *, with_ray: bool = True) -> Found:
    """What a search found in a simulated model: a sample is a copy if its noise lies far enough in one direction.

    Args:
        status: How the search of the image ended.
        with_ray: Whether the optimizer followed a direction.
    """
    q = diagonal()(torch.zeros(SHAPE))
    mu = q.parameters()["mu"]
    towards = torch.randn(SHAPE, generator=seeded())
    ray = Ray(mu)
    ray.aim(towards)
    ray.move(DOSES[status])
    proposals, numbers = Proposals(towards), seeded(seed=1)
    shifted: list[Shifted] = []
    outcomes: list[Outcome] = []

    def draw(n: int, *chosen: Proposal) -> Samples:
        with torch.no_grad():
            noise = [proposals.rsample(one, n, numbers) for one in chosen] or [q.rsample(n, numbers)]
        similarities = torch.sigmoid(ray.distances(torch.cat(noise)) - 3)
        hits = similarities >= THRESHOLD
        if with_ray:
            for one, part, copies in zip(
                chosen or [Proposal(mu.detach().clone())], noise, torch.split(hits, n), strict=True
            ):
                shifted.append(Shifted(1.0, one, n, part[copies]))
            outcomes.extend(map(Outcome, [] if chosen else ray.distances(noise[0]).tolist(), hits.tolist()))
        images = torch.zeros((len(hits), *SHAPE), dtype=torch.uint8)
        return Samples(torch.cat(noise), tuple(similarities.tolist()), tuple(hits.tolist()), images)

    async def sample(n: int, *chosen: Proposal) -> Samples:
        return draw(n, *chosen)

    recipe = Recipe(optimizer="dose", check_images=8, first_dose=1.0, responses=64, confirm=64)
    shown = draw(recipe.check_images)
    replicated = status is Status.REPLICATED
    check = Check(replicated, {1.0: shown.similarities}, {1.0: shown.images}) if replicated or with_ray else None
    return Found(
        status=status,
        recipe=recipe,
        threshold=THRESHOLD,
        check=check,
        noise=q,
        ray=ray if with_ray else None,
        sample=sample,
        shifted=lambda: shifted,
        outcomes=outcomes,
        propose=(lambda _: proposals) if with_ray else None,
    )
