"""Estimators: values that are computed from what a search found and from further samples.

An estimator runs once per image, after the search of the image has ended without an error. It is a coroutine, and
awaits the samples that it asks for: those of all images that are asked for at the same time are drawn together.
"""

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import cycle
from typing import Any, Protocol

from torch import Tensor

from invmm_eval.noise import Noise
from invmm_eval.recipe import Recipe
from invmm_eval.search.proposals import Proposal, Proposals
from invmm_eval.search.ray import Ray
from invmm_eval.search.result import CONFIRMATION, DOSE_RESPONSE, Check, Status
from invmm_eval.statistics.response import DRAWN_AT, Outcome, Response


@dataclass(frozen=True)
class Samples:
    """Samples of the model at one guidance scale, compared with the image.

    Attributes:
        noise: The initial noises, ``(n, ...)``, on the model's device.
        similarities: n similarities to the image.
        hits: Whether each similarity reaches the threshold.
        images: The samples, uint8 ``(n, C, H, W)``, on the CPU.
    """

    noise: Tensor
    similarities: tuple[float, ...]
    hits: tuple[bool, ...]
    images: Tensor


@dataclass(frozen=True)
class Shifted:
    """Samples whose noise was drawn from a known distribution.

    Attributes:
        scale: The guidance scale.
        proposal: The distribution; its mean is 0 for plain samples.
        drawn: Number of samples.
        noise: The noises of those that are copies, ``(h, ...)``.
    """

    scale: float
    proposal: Proposal
    drawn: int
    noise: Tensor


class Draw(Protocol):
    """Draws new samples, which are there when they have been awaited."""

    def __call__(self, n: int, *proposals: Proposal) -> Awaitable[Samples]:
        """``n`` samples of noise from q as it is now; or from each of some proposals, in one go."""
        ...


@dataclass(frozen=True)
class Found:
    """What the search of one image found.

    Attributes:
        status: Replicated or exhausted.
        recipe: The settings of the search.
        threshold: The similarity from which on a sample counts as a replica (beta).
        check: The check that q belongs to: the passed one, or, where a search along a ray was exhausted, the one with
            most replicas. None where there is no such check; q is then the last one.
        noise: q. Where an estimator changes its parameters, the result is that of the changed q.
        ray: The ray that the mean of q lies on; None where the optimizer follows none.
        sample: ``await found.sample(n)`` draws ``n`` new samples from q as it is now, at the best guidance scale of the
            last check; or, with further arguments, from each of these distributions, which are made by ``proposals``.
        guidance: That scale; 0 where there is no prompt.
        shifted: Returns all samples so far at that scale whose noise was plain noise shifted along a ray, or drawn from
            a proposal: those of the checks, and those that ``sample`` has drawn.
        outcomes: Of the samples on the ray at that scale, those of the checks among them: the distance of the noise
            along the ray, and whether it gave a copy.
        draw_plain: Draws :attr:`plain`, unless an earlier image of the run has.
        propose: Makes :attr:`proposals` from :attr:`plain`; None where the optimizer follows no ray.
    """

    status: Status
    recipe: Recipe
    threshold: float
    check: Check | None
    noise: Noise
    ray: Ray | None
    sample: Draw
    guidance: float = 0.0
    shifted: Callable[[], Sequence[Shifted]] = tuple
    outcomes: list[Outcome] = field(default_factory=list)
    draw_plain: Callable[[], Shifted | None] = lambda: None
    propose: Callable[[Shifted | None], Proposals] | None = None

    @cached_property
    def plain(self) -> Shifted | None:
        """Plain samples of the model, drawn when they are first asked for; None where there are none."""
        return self.draw_plain()

    @cached_property
    def proposals(self) -> Proposals | None:
        """Where noise that gives copies is likely; None where the optimizer follows no ray."""
        return self.propose(self.plain) if self.propose else None


class Estimator(Protocol):
    """Computes values for one image after its search, by ``async def __call__``."""

    @property
    def name(self) -> str:
        """The name it is registered under."""
        ...

    @property
    def fields(self) -> Mapping[str, str]:
        """The values it returns, by name, each with a short description that reports show."""
        ...

    def __call__(self, found: Found) -> Coroutine[Any, Any, Mapping[str, Any] | None]:
        """The values by name, as JSON can hold them; None where nothing can be estimated."""
        ...


class DoseResponse:
    """Samples at several doses, for the dose-response curve (see :mod:`invmm_eval.statistics.response`).

    In a replicated search q then moves to the dose at which the share ``rate`` of samples replicates, at most to the
    largest dose of the recipe.
    """

    name = DOSE_RESPONSE
    fields: Mapping[str, str] = {
        "outcomes": "distance of each sample's noise along the mean, and whether the sample is a replica",
        "ed50": "dose at which half of the samples are replicas, and the ends of its interval, in nats",
        "ed90": "the same for 90 % of the samples",
    }

    async def __call__(self, found: Found) -> Mapping[str, Any] | None:
        """``responses`` samples, ``check_images`` at a dose."""
        recipe, ray = found.recipe, found.ray
        if found.check is None or ray is None or not recipe.responses:
            return None
        reached = ray.nats
        largest = recipe.first_dose * recipe.growth ** (recipe.max_steps // recipe.check_every - 1)
        for _, share in zip(range(recipe.responses // recipe.check_images), cycle(DRAWN_AT), strict=False):
            if found.outcomes:
                ray.move(min(Response(tuple(found.outcomes)).dose(share).nats, largest))
            await found.sample(recipe.check_images)
        response = Response(tuple(found.outcomes))
        replicated = found.status is Status.REPLICATED
        ray.move(min(response.dose(recipe.rate).nats, largest) if replicated else reached)
        return response.values()


class Confirmation:
    """The rate of replicas among fresh samples from q."""

    name = CONFIRMATION
    fields: Mapping[str, str] = {"hits": "number of replicas", "drawn": "number of samples"}

    async def __call__(self, found: Found) -> Mapping[str, Any] | None:
        """``confirm`` samples."""
        if found.check is None or not found.recipe.confirm:
            return None
        hits = (await found.sample(found.recipe.confirm)).hits
        return {"hits": sum(hits), "drawn": len(hits)}


def built_in_estimators(recipe: Recipe) -> tuple[Estimator, ...]:
    """The estimators that the settings ``responses`` and ``confirm`` of a recipe switch on, in their order."""
    return (*([DoseResponse()] if recipe.responses else []), *([Confirmation()] if recipe.confirm else []))
