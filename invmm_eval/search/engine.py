"""The measure: search, for each image, the noise distribution that makes the model replicate it.

Each step draws S noises n from q and S times t, and moves the parameters of q (and of the condition) along the gradient
of the loss in :mod:`invmm_eval.search.steps`; every C steps a check decides whether the search ends. Ma et al. 2025,
"An Inversion-based Measure of Memorization for Diffusion Models", section 3.

Several images are searched together. Each has its own distribution, optimizer and random numbers, seeded by the run's
seed and its own pixels, so that its result does not depend on the other images.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain, islice
from typing import TypeVar, cast

import torch
from torch import Tensor

from invmm_eval.errors import InvMMError
from invmm_eval.models.backbone import Backbone
from invmm_eval.noise import NoiseFamily
from invmm_eval.recipe import Recipe
from invmm_eval.search.checks import Trial, check
from invmm_eval.search.common import Common, Setup
from invmm_eval.search.criteria import CRITERIA
from invmm_eval.search.estimating import Estimation
from invmm_eval.search.estimators import Estimator, built_in_estimators
from invmm_eval.search.memory import MicroBatch
from invmm_eval.search.optimizers import OPTIMIZERS, Optimizer
from invmm_eval.search.result import Check, Result, Status
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
        _require_gradient_free(optimizer, noise, recipe, backbone, lacking)
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
        self._images_alone = images_alone
        self._estimations: dict[Search, Estimation] = {}
        self._backward = partial(backward, setup.backbone, self._micro_batch)

    def run(self, targets: Iterable[Target], batch_size: int, on_step: OnStep | None) -> Iterator[Result]:
        """Results as they become ready; a place that becomes free goes to the next image."""
        tell = on_step or (lambda _: None)
        waiting = enumerate(targets)
        searches: list[Search] = []
        steps, checked = 0, False
        while True:
            if steps % self._setup.recipe.check_every == 0 or not _running(searches):
                steps = 0
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
            if running := _running(searches):
                steps += 1
                checked = steps % self._setup.recipe.check_every == 0
                self._take_step(running, checked=checked)
                tell(_running(running))
            self._draw_samples(searches, tell, checked=checked)
            ended = [search for search in searches if search.status and not self._is_estimating(search)]
            for search in ended:
                self._estimations.pop(search, None)
                yield search.result()
            searches = [search for search in searches if search not in ended]

    def _take_step(self, searches: Sequence[Search], *, checked: bool) -> None:
        """One step of each search."""
        started = time.perf_counter()
        with torch.inference_mode(mode=False), torch.enable_grad():
            draws = _drawn(Search.draw, [search for search in searches if search.optimizer.uses_gradients])
            losses = dict(self._isolated(self._backward, draws))
            if moved := _running(searches):
                with _failing(*moved):
                    self._setup.optimizer.step([search.optimizer for search in moved], checked=checked)
                    for search in moved:
                        search.count_step(losses.get(search))
        for search in searches:
            search.seconds_steps += (time.perf_counter() - started) / len(searches)

    def _draw_samples(self, searches: Sequence[Search], tell: OnStep, *, checked: bool) -> None:
        """The samples that estimators wait for, and with them those of the checks that are due."""
        started = time.perf_counter()
        due = [search for search in searches if self._is_estimating(search) or (checked and not search.status)]
        asked = dict(_drawn(self._trials, due))
        unread = _drawn(lambda search: search.unread(asked[search]), list(asked))
        for (search, _), values in zip(unread, _read([tensor for _, tensor in unread]), strict=True):
            with _failing(search):
                search.read(values)
        jobs = [(search, trials) for search, trials in asked.items() if search.status is not Status.FAILED]
        for group in [[job] for job in jobs] if self._images_alone else [jobs]:
            for search, checks in self._isolated(self._check, group):
                with _failing(search):
                    self._take_samples(search, checks, asked[search], tell)
        for search in due:
            search.seconds_checks += (time.perf_counter() - started) / len(due)

    def _trials(self, search: Search) -> Sequence[Trial]:
        return self._estimations[search].trials if search in self._estimations else [search.draw_trial()]

    def _check(self, asked: Sequence[Sequence[Trial]]) -> list[list[Check]]:
        """The checks of the trials of several searches."""
        setup = self._setup
        trials = list(chain(*asked))
        checks = iter(check(setup.backbone, setup.similarity, setup.recipe, setup.criterion, self._micro_batch, trials))
        return [list(islice(checks, len(trials))) for trials in asked]

    def _take_samples(self, search: Search, checks: Sequence[Check], trials: Sequence[Trial], tell: OnStep) -> None:
        if search in self._estimations:
            self._estimations[search].take(checks)
        else:
            search.record_check(trials[0], checks[0])
            if search.status:
                self._estimations[search] = Estimation(search, self._setup, lambda: tell([search]))

    def _is_estimating(self, search: Search) -> bool:
        return (
            search in self._estimations
            and search.status is not Status.FAILED
            and bool(self._estimations[search].trials)
        )

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


def _require_gradient_free(
    optimizer: type[Optimizer], noise: NoiseFamily, recipe: Recipe, backbone: Backbone, lacking: str
) -> None:
    """Check that an optimizer needs no gradient where no prompt is searched."""
    start = torch.ones(backbone.image_shape)
    if optimizer(noise(start).parameters(), {}, recipe, lambda: start).uses_gradients:
        raise InvMMError(f"The recipe {recipe.name} cannot search this model: {lacking}; take the recipe fast.")


@contextmanager
def _failing(*searches: Search) -> Iterator[None]:
    """An error fails the searches instead of the run."""
    try:
        yield
    except Exception as error:
        for search in searches:
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
