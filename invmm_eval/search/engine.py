"""The measure: search, for each image, the noise distribution that makes the model replicate it.

Each step draws S noises n from q and S times t, and moves the parameters of q (and of the condition) along the gradient
of the loss in :mod:`invmm_eval.search.steps`; every C steps a check decides whether the search ends. Ma et al. 2025,
"An Inversion-based Measure of Memorization for Diffusion Models", section 3.

Several images are searched together. Each has its own distribution, optimizer and random numbers, seeded by the run's
seed and its own pixels, so that its result does not depend on the other images.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain, compress, islice
from operator import not_
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from invmm_eval.errors import InvMMError
from invmm_eval.models.backbone import Backbone
from invmm_eval.models.condition import has_own_prompt
from invmm_eval.noise import NoiseFamily
from invmm_eval.recipe import Recipe
from invmm_eval.search.checks import check, hold_finite
from invmm_eval.search.common import Common, Setup
from invmm_eval.search.criteria import CRITERIA
from invmm_eval.search.estimators import Estimator, Found, Samples, built_in_estimators
from invmm_eval.search.memory import MicroBatch
from invmm_eval.search.optimizers import OPTIMIZERS, OptimizerMaker
from invmm_eval.search.proposals import Proposal
from invmm_eval.search.result import Result, Status
from invmm_eval.search.rows import Counted
from invmm_eval.search.search import Search
from invmm_eval.search.steps import backward
from invmm_eval.search.target import Target
from invmm_eval.similarity import Similarity

J = TypeVar("J")
R = TypeVar("R")
OnStep = Callable[[Sequence[Search]], None]


@torch.inference_mode(mode=False)
def invert(
    backbone: Backbone,
    targets: Iterable[Target],
    similarity: Similarity,
    noise: NoiseFamily,
    *,
    recipe: Recipe | None = None,
    estimators: Sequence[Estimator] = (),
    seed: int = 0,
    batch_size: int = 1,
    micro_batch: int | None = None,
    on_step: OnStep | None = None,
) -> Iterator[Result]:
    """Measure images, yielding each result as soon as it is ready.

    Args:
        backbone: The model.
        targets: The images, taken one by one as places become free.
        similarity: Decides whether a sample is a replica.
        noise: The family that q is from.
        recipe: Settings; None takes the backbone's published ones.
        estimators: Further values to compute after each search, all that the recipe names among them.
        seed: Together with an image's pixels it determines all random numbers for that image.
        batch_size: Number of images searched together.
        micro_batch: Maximum number of rows of a network call. None takes the draws of one image, with which an image's
            result is the same bit for bit whatever it is searched with. Where memory runs out it is halved for the rest
            of the run, and nothing is lost.
        on_step: Called after each step with the running searches, and, while samples are drawn for the estimators of an
            ended one, with that one; it must not change them.

    Raises:
        InvMMError: The recipe names an unknown optimizer or criterion, or an estimator that is not passed; or it needs
            gradients, and the backbone has none.
    """
    recipe = recipe or backbone.recipe
    threshold = similarity.threshold if recipe.threshold is None else recipe.threshold
    optimizer = _find("optimizer", recipe.optimizer, OPTIMIZERS)
    criterion = _find("criterion", recipe.criterion, CRITERIA)(recipe, threshold)
    if lacking := getattr(backbone, "no_gradient", None):
        _hold_gradient_free(optimizer, noise, recipe, backbone, lacking)
    if missing := sorted(set(recipe.estimators) - {estimator.name for estimator in estimators}):
        raise InvMMError(f"The recipe's estimator {missing[0]!r} is not among the estimators passed to the search.")
    by_name = {estimator.name: estimator for estimator in (*built_in_estimators(recipe), *estimators)}
    counted = Counted(backbone)
    at_once = MicroBatch(micro_batch or recipe.draws)
    setup = Setup(
        backbone=cast("Backbone", counted),
        similarity=similarity,
        family=noise,
        recipe=recipe,
        threshold=threshold,
        optimizer=optimizer,
        criterion=criterion,
        estimators=tuple(by_name.values()),
        seed=seed,
        common=Common(backbone, similarity, recipe, seed, at_once),
    )
    return _Engine(setup, counted, at_once, images_alone=micro_batch is None).run(targets, batch_size, on_step)


class _Engine:
    """Runs searches in batches."""

    def __init__(self, setup: Setup, counted: Counted, micro_batch: MicroBatch, *, images_alone: bool) -> None:
        self._setup = setup
        self._counted = counted
        self._micro_batch = micro_batch
        # The last digits of a network's output depend on the rows that it computes together.
        self._checks_images_alone = images_alone
        self._backward = partial(backward, setup.backbone, self._micro_batch)
        self._check = partial(check, setup.backbone, setup.similarity, setup.recipe, setup.criterion, self._micro_batch)

    def run(self, targets: Iterable[Target], batch_size: int, on_step: OnStep | None) -> Iterator[Result]:
        """Results as they become ready; a place that becomes free goes to the next image."""
        tell = on_step or (lambda _: None)
        waiting = enumerate(targets)
        searches: list[Search] = []
        while True:
            while len(searches) < batch_size and (entry := next(waiting, None)):
                search = Search(*entry, self._setup)
                with _failing(search):
                    search.start()
                if search.status:
                    yield search.result()
                else:
                    searches.append(search)
            if not searches:
                return
            started = time.perf_counter()
            self._take_steps(searches, tell)
            stepped = time.perf_counter()
            checked_searches = _running(searches)
            self._check_all(checked_searches)
            for search in checked_searches:
                if search.status and search.status is not Status.FAILED:
                    with _failing(search):
                        self._estimate(search, tell)
            checked = time.perf_counter()
            for search in searches:
                search.seconds_steps += (stepped - started) / len(searches)
                search.seconds_checks += (checked - stepped) / len(searches)
                if search.status:
                    yield search.result()
            searches = _running(searches)

    def _take_steps(self, searches: Sequence[Search], tell: OnStep) -> None:
        """C steps of each search."""
        with torch.inference_mode(mode=False), torch.enable_grad():
            for _ in range(self._setup.recipe.check_every):
                running = _running(searches)
                uses_gradients = [search.optimizer.uses_gradients for search in running]
                for search in compress(running, map(not_, uses_gradients)):
                    with _failing(search):
                        search.take_step()
                draws = _drawn(Search.draw, list(compress(running, uses_gradients)))
                for search, loss in self._isolated(self._backward, draws):
                    with _failing(search):
                        search.take_step(loss)
                tell(_running(searches))
        unread = _drawn(Search.unread, _running(searches))
        for (search, _), values in zip(unread, _read([tensor for _, tensor in unread]), strict=True):
            with _failing(search):
                search.read(values)

    def _check_all(self, searches: Sequence[Search]) -> None:
        """A check of each search."""
        for complete in (False, True):
            chosen = [search for search in searches if search.is_checked_completely is complete]
            trials = _drawn(Search.draw_trial, chosen)
            for group in [[trial] for trial in trials] if self._checks_images_alone else [trials]:
                drawn = dict(group)
                for search, outcome in self._isolated(partial(self._check, complete=complete), group):
                    with _failing(search):
                        search.record_check(drawn[search], outcome)

    def _estimate(self, search: Search, tell: OnStep) -> None:
        """Run the estimators on an ended search."""
        setup = self._setup
        origin = search.return_to_best_check()
        assert search.status is not None
        assert search.last_check is not None
        scale = search.last_check.best_scale
        if origin is None and 0 in search.last_check.similarities:
            scale = 0.0  # Where no copy was found, only the plain samples without a prompt tell how many there are.
        ray = search.optimizer.ray

        def drawn_more(n: int) -> None:
            search.sampled += n
            tell([search])

        def sample(n: int, *proposals: Proposal) -> Samples:
            known = found.proposals if proposals else None
            rsamples = [partial(known.rsample, proposal) for proposal in proposals] if known else [None]
            trials = [replace(search.draw_trial(n, rsample), guidance=(scale,)) for rsample in rsamples]
            checks = self._check(trials, complete=True)
            similarities = tuple(chain(*(check.similarities[scale] for check in checks)))
            hold_finite(setup.similarity, similarities)
            hits = tuple(value >= setup.threshold for value in similarities)
            for trial, drawn, proposal in zip(trials, checks, proposals or [None], strict=True):
                search.remember_samples(trial, drawn, search.kl, proposal)
            drawn_more(len(hits))
            noise, images = [trial.noise for trial in trials], [check.samples[scale] for check in checks]
            return Samples(torch.cat(noise), similarities, hits, torch.cat(images))

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
                drawn_more,
            ),
            propose=partial(setup.common.proposals, search.x_0, ray) if ray else None,
        )
        with self._counted.shared([search]):
            for estimator in setup.estimators:
                values = estimator(found)
                if values is not None:
                    search.estimates[estimator.name] = _as_json(estimator.name, values)

    def _isolated(
        self, work: Callable[[Sequence[J]], Sequence[R]], jobs: Sequence[tuple[Search, J]]
    ) -> list[tuple[Search, R]]:
        """The outcomes of work on all jobs together; where that raises, on each alone: only the culprits fail."""
        groups = [list(jobs)] if jobs else []
        outcomes: list[tuple[Search, R]] = []
        while groups:
            group = groups.pop(0)
            try:
                with self._counted.shared([search for search, _ in group]):
                    done = work([job for _, job in group])
            except Exception as error:
                if len(group) == 1:
                    group[0][0].fail(error)
                else:
                    groups = [[job] for job in group]
            else:
                outcomes += [(search, outcome) for (search, _), outcome in zip(group, done, strict=True)]
        return outcomes


def _find(kind: str, name: str, parts: Mapping[str, J]) -> J:
    if name not in parts:
        raise InvMMError(f"There is no {kind} {name!r}; choose one of {', '.join(parts)}.")
    return parts[name]


def _hold_gradient_free(
    optimizer: OptimizerMaker, noise: NoiseFamily, recipe: Recipe, backbone: Backbone, lacking: str
) -> None:
    """Check that an optimizer needs no gradient where no prompt is searched."""
    start = torch.ones(backbone.image_shape)
    if optimizer(noise(start).parameters(), {}, recipe, lambda: start).uses_gradients:
        raise InvMMError(f"The recipe {recipe.name} cannot search this model: {lacking}; take the recipe fast.")


@contextmanager
def _failing(search: Search) -> Iterator[None]:
    """An error fails the search instead of the run."""
    try:
        yield
    except Exception as error:
        search.fail(error)


def _running(searches: Sequence[Search]) -> list[Search]:
    return [search for search in searches if not search.status]


def _drawn(draw: Callable[[Search], J], searches: Sequence[Search]) -> list[tuple[Search, J]]:
    """What each search draws; a search whose draw raises fails and is left out."""
    drawn = []
    for search in searches:
        with _failing(search):
            drawn.append((search, draw(search)))
    return drawn


def _read(tensors: Sequence[Tensor]) -> list[list[float]]:
    """The values of tensors of one dimension, in one copy from the device, so that the host waits once for all."""
    values = iter(torch.cat(list(tensors)).tolist() if tensors else [])
    return [list(islice(values, len(tensor))) for tensor in tensors]


def _as_json(name: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The values as they are read back from a file.

    Raises:
        InvMMError: JSON cannot hold them.
    """
    try:
        return dict(json.loads(json.dumps(values, allow_nan=False)))
    except (TypeError, ValueError) as error:
        raise InvMMError(f"The estimator {name!r} returned values that JSON cannot hold: {error}.") from error
