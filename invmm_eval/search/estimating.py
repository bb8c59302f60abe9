"""The estimators of an ended search, which wait for samples that are drawn together with those of other images."""

import json
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any

import torch

from invmm_eval.errors import InvMMError
from invmm_eval.models.condition import has_own_prompt
from invmm_eval.search.checks import Trial, require_finite
from invmm_eval.search.common import Setup
from invmm_eval.search.estimators import Found, Samples
from invmm_eval.search.proposals import Proposal, Proposals
from invmm_eval.search.result import PLAIN_SHARE, Check
from invmm_eval.search.search import Search


@dataclass(frozen=True)
class _Asked:
    """Samples that an estimator awaits."""

    trials: Sequence[Trial]

    def __await__(self) -> Generator["_Asked", Samples, Samples]:
        return (yield self)


class Estimation:
    """Runs the estimators of one search, one after the other, each until it awaits samples.

    Args:
        search: A search that has ended without an error.
        setup: Its parts and settings.
        tell: Called whenever samples were drawn.

    Raises:
        InvMMError: An estimator's values cannot be stored, or it awaits something else than samples.
    """

    def __init__(self, search: Search, setup: Setup, tell: Callable[[], None]) -> None:
        self._search = search
        self._setup = setup
        self._tell = tell
        origin = search.return_to_best_check()
        assert search.last_check is not None
        self._scale = search.last_check.best_scale
        if origin is None and 0 in search.last_check.similarities:
            self._scale = 0.0  # Where no copy was found, only plain samples without a prompt show how many there are.
        found = self._found(origin)
        if PLAIN_SHARE in setup.recipe.estimators:
            _ = found.plain  # which it needs: drawn from here the network is called by a short stack
        self._values = self._estimate(found)
        self._asked: _Asked | None = None
        self._go_on(None)

    @property
    def trials(self) -> Sequence[Trial]:
        """The samples to draw next; none where all estimators are done."""
        return self._asked.trials if self._asked else ()

    def take(self, checks: Sequence[Check]) -> None:
        """Go on with the samples of :attr:`trials`.

        Raises:
            InvMMError: A similarity is not finite; or see above.
        """
        assert self._asked is not None
        search, trials, scale = self._search, self._asked.trials, self._scale
        similarities = tuple(chain(*(check.similarities[scale] for check in checks)))
        require_finite(self._setup.similarity, similarities)
        for trial, check in zip(trials, checks, strict=True):
            search.remember_samples(trial, check)
        self._drawn_more(len(similarities))
        noise, images = [trial.noise for trial in trials], [check.samples[scale] for check in checks]
        hits = tuple(value >= self._setup.threshold for value in similarities)
        self._go_on(Samples(torch.cat(noise), similarities, hits, torch.cat(images)))

    def _drawn_more(self, n: int) -> None:
        self._search.sampled += n
        self._tell()

    def _go_on(self, samples: Samples | None) -> None:
        try:
            asked = self._values.send(samples)
        except StopIteration:
            asked = None
        if not isinstance(asked, _Asked | None):
            raise InvMMError("An estimator awaits something else than found.sample(...); no other samples are drawn.")
        self._asked = asked

    async def _estimate(self, found: Found) -> None:
        for estimator in self._setup.estimators:
            values = await estimator(found)
            if values is not None:
                self._search.estimates[estimator.name] = _as_json(estimator.name, values)

    def _found(self, origin: Check | None) -> Found:
        search, setup, scale = self._search, self._setup, self._scale
        ray = search.optimizer.ray
        assert search.status is not None

        def trial(n: int, proposal: Proposal | None, proposals: Proposals | None) -> Trial:
            rsample = partial(proposals.rsample, proposal) if proposals and proposal else None
            return replace(search.draw_trial(n, rsample), guidance=(scale,), complete=True, proposal=proposal)

        def sample(n: int, *proposals: Proposal) -> _Asked:
            known = found.proposals if proposals else None
            return _Asked([trial(n, proposal, known) for proposal in proposals or [None]])

        found = Found(
            status=search.status,
            recipe=setup.recipe,
            threshold=setup.threshold,
            check=origin,
            noise=search.noise,
            ray=ray,
            sample=sample,
            shifted=lambda: [shifted for shifted in search.shifted if shifted.scale == scale],
            outcomes=ray.outcomes.setdefault(scale, []) if ray else [],
            guidance=scale if has_own_prompt(search.condition) else 0.0,
            draw_plain=partial(
                setup.common.plain,
                scale,
                search.x_0,
                search.condition,
                search.features,
                setup.threshold,
                self._drawn_more,
            ),
            propose=partial(setup.common.proposals, search.x_0, ray) if ray else None,
        )
        return found


def _as_json(name: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The values as they are read back from a file.

    Raises:
        InvMMError: JSON cannot hold them.
    """
    try:
        return dict(json.loads(json.dumps(values, allow_nan=False)))
    except (TypeError, ValueError) as error:
        raise InvMMError(f"The estimator {name!r} returned values that JSON cannot hold: {error}.") from error
