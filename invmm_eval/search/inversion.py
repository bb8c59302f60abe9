"""The measure itself: search, for each image, the noise distribution that makes the model replicate it.

Each step draws S noises n from q and S times t, and takes one Adam step on

    loss = mean |x0_hat(alpha_t x_0 + sigma_t n, t) - x_0|^2  +  lambda * KL(q || N(0, I)) / D

in the parameters of q (and of the condition); every C steps a check decides (see :mod:`invmm_eval.search.check`).
Ma et al. 2025, "An Inversion-based Measure of Memorization for Diffusion Models", section 3.

Several images are searched together. Each has its own distribution, weight, optimizer and random numbers, seeded by
the run's seed and its own pixels, so that its result does not depend on its company.
"""

import logging
import math
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle
from typing import TypeVar

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import Tensor

from invmm_eval.errors import InvMMError
from invmm_eval.models.backbone import Backbone
from invmm_eval.models.condition import Context, join, repeat, rows
from invmm_eval.models.schedule import broadcast
from invmm_eval.noise import Noise, NoiseFamily
from invmm_eval.recipe import Recipe
from invmm_eval.search.check import Check, Trial, check
from invmm_eval.search.dose import DosePath
from invmm_eval.search.result import Point, Result, Status
from invmm_eval.search.sampling import chunks, predict_x0, sample
from invmm_eval.search.target import Target, generator
from invmm_eval.search.weight import AdaptiveWeight
from invmm_eval.similarity import Similarity
from invmm_eval.statistics.response import DRAWN_AT, Count, Outcome, Response

T = TypeVar("T")
_log = logging.getLogger(__name__)


def invert(
    backbone: Backbone,
    targets: Iterable[Target],
    similarity: Similarity,
    noise: NoiseFamily,
    *,
    recipe: Recipe | None = None,
    seed: int = 0,
    batch_size: int = 1,
    micro_batch: int | None = None,
    on_step: Callable[[Sequence["Search"]], None] | None = None,
) -> Iterator[Result]:
    """Measure images, yielding each result as it is ready.

    Args:
        backbone: The model.
        targets: The images, taken one by one as places become free.
        similarity: What decides whether a sample is a replica.
        noise: The family that q is from.
        recipe: Settings; None takes the backbone's published ones.
        seed: With an image's pixels it decides all its random numbers.
        batch_size: Images searched together.
        micro_batch: At most so many rows go through the network at once. None takes one image's draws, with which an
            image's result is the same bit for bit in any company. Where memory runs out it is halved for the rest of
            the run, and nothing is lost.
        on_step: Called after each step with the searches under way, to be read only.
    """
    engine = _Engine(backbone, similarity, noise, recipe or backbone.recipe, seed, micro_batch)
    queue = enumerate(targets)
    active: list[Search] = []
    while True:
        while len(active) < batch_size and (waiting := next(queue, None)):
            search = Search(*waiting, engine)
            if search.status:
                yield search.result()
            else:
                active.append(search)
        if not active:
            return
        engine.advance(active, on_step)
        for search in active:
            if search.status:
                yield search.result()
        active = [search for search in active if not search.status]


def replicate(
    backbone: Backbone,
    result: Result,
    noise: NoiseFamily,
    n: int,
    *,
    recipe: Recipe | None = None,
    seed: int = 0,
    guidance: float | None = None,
) -> Tensor:
    """Draw ``n`` fresh images, float32 ``(n, C, H, W)`` in [0, 1], from what a search found.

    Args:
        backbone: The model that was searched.
        result: A result that did not fail, made now or loaded.
        noise: The family that its q is from.
        n: How many.
        recipe: Gives the sampler and its steps; None takes the backbone's published one.
        seed: Of the random numbers.
        guidance: Guidance scale; None takes the one that did best at the last check.

    Raises:
        InvMMError: The search failed, or its parameters are not of this family and model.
    """
    if result.check is None:
        raise InvMMError(f"There is nothing to sample from: the search of {result.name or 'this image'} failed.")
    recipe = recipe or backbone.recipe
    channels, height, width = backbone.image_shape
    like = backbone.encode(torch.zeros(1, channels, height, width, device=backbone.device))[0]
    q = noise(like)
    condition = backbone.condition(result.caption)
    _restore(q.parameters(), result.noise, "noise")
    _restore(condition.parameters(), result.condition, "condition")
    scale = result.check.best_scale if guidance is None else guidance
    with torch.no_grad():
        return sample(
            backbone,
            q.rsample(n, generator(seed, result.digest, "replicate")),
            condition.rsample(n, generator(seed, result.digest, "replicate condition", backbone.device)),
            condition.null(n),
            torch.full((n,), scale, device=backbone.device),
            steps=recipe.sampler_steps,
            micro_batch=recipe.draws,
            sampler=recipe.sampler,
        )


class Search:
    """One image's search under way.

    Attributes:
        index: Position among the images of the run.
        target: The image.
        step: Adam steps taken.
        latest: q as it is now.
        noise: q as it is checked and told: the latest, or its average over the steps where the recipe asks for it.
        weight: lambda as it is now.
        last_check: The latest check, None before the first.
        status: None while it goes on.
        error: What went wrong, where the status is ``failed``.
    """

    def __init__(self, index: int, target: Target, engine: "_Engine") -> None:
        self.index = index
        self.target = target
        self.step = 0
        self.last_check: Check | None = None
        self.status: Status | None = None
        self.error: str | None = None
        self.traceback: str | None = None
        self.seconds_steps = 0.0
        self.seconds_checks = 0.0
        self.trace: list[Point] = []
        self._engine = engine
        self._losses: list[float] = []
        self._closest: _Place | None = None
        self._response: Response | None = None
        self._confirmed: Count | None = None
        self._unread: list[Tensor] = []
        try:
            self._start()
        except Exception as error:
            self.fail(error)

    def _start(self) -> None:
        backbone, recipe = self._engine.backbone, self._engine.recipe
        image = self.target.image
        if image.dtype != torch.uint8 or tuple(image.shape) != backbone.image_shape:
            raise InvMMError(
                f"The image is {image.dtype} of shape {tuple(image.shape)}; this model takes torch.uint8 of shape "
                f"{backbone.image_shape} (invmm_eval.audits.images.prepare makes it so)."
            )
        with torch.no_grad():
            pixels = image.to(backbone.device)[None].float() / 255
            self.x_0 = backbone.encode(pixels)
            self.features = self._engine.similarity.embed(pixels)
        self.latest: Noise = self._engine.family(self.x_0[0])
        self.noise = self._engine.family(self.x_0[0]) if recipe.averaging else self.latest
        self.condition = backbone.condition(self.target.caption)
        self.weight = AdaptiveWeight(recipe)
        noise, condition = self.latest.parameters(), list(self.condition.parameters().values())
        self._path = DosePath(noise, recipe.first_dose, recipe.check_every) if recipe.first_dose else None
        parameters = condition if self._path else [*noise.values(), *condition]
        self._optimizer = torch.optim.Adam(parameters, lr=recipe.learning_rate) if parameters else None
        seed, digest = self._engine.seed, self.target.digest
        self._steps = generator(seed, digest, "steps")
        self._checks = generator(seed, digest, "checks")
        self._step_contexts = generator(seed, digest, "step contexts", backbone.device)
        self._check_contexts = generator(seed, digest, "check contexts", backbone.device)

    @property
    def max_steps(self) -> int:
        """Steps after which it ends at the latest."""
        return self._engine.recipe.max_steps

    @property
    def loss(self) -> float:
        """Mean squared error of the estimates of x_0 in the latest step; NaN before the first."""
        latest: list[Tensor] | list[float] = self._unread[-1:] or self._losses[-1:]
        return float(latest[0]) if latest else math.nan

    @property
    def kl(self) -> float:
        """KL of q now, in nats per dimension."""
        with torch.no_grad():
            return float(self.noise.kl())

    def draw(self) -> "_Draw":
        """The random numbers of one step."""
        backbone, draws = self._engine.backbone, self._engine.recipe.draws
        return _Draw(
            noise=self.latest.rsample(draws, self._steps),
            t=backbone.schedule.draw(draws, self._steps).to(backbone.device),
            context=self.condition.rsample(draws, self._step_contexts),
        )

    def trial(self, images: int) -> Trial:
        """The random numbers of one check of so many images."""
        shared = self._engine.recipe.shared_context
        with torch.no_grad():
            context = self.condition.rsample(1 if shared else images, self._check_contexts)
            return Trial(
                noise=self.noise.rsample(images, self._checks),
                context=repeat(context, images) if shared else context,
                null=self.condition.null(images),
                features=self.features,
            )

    def forget_gradients(self) -> None:
        """Before a step."""
        for mover in (self._path, self._optimizer):
            if mover:
                mover.zero_grad()

    def take_step(self, loss: Tensor) -> None:
        """Move along the gradients; the loss stays on its device unread, so that no step waits for it."""
        for mover in (self._path, self._optimizer):
            if mover:
                mover.step()
        self._unread.append(loss)
        self.step += 1
        if decay := self._engine.recipe.averaging:
            share, latest = (1 - decay) / (1 - decay**self.step), self.latest.parameters()
            with torch.no_grad():
                for name, average in self.noise.parameters().items():
                    average.lerp_(latest[name], share)
        if self.step % self._engine.recipe.check_every:
            self.weight.grow()

    def settle(self) -> None:
        """Read the losses since the last check, and end the search where they or q are no longer finite."""
        fresh = torch.stack(self._unread).tolist() if self._unread else []
        self._unread.clear()
        self._losses.extend(fresh)
        unusable = next((position for position, loss in enumerate(fresh) if not math.isfinite(loss)), None)
        if unusable is not None:
            step = self.step - len(fresh) + unusable + 1
            self.fail(
                InvMMError(
                    f"The loss became {fresh[unusable]} at step {step}; try float32, or check the model's weights."
                )
            )
        elif not math.isfinite(self.kl):
            self.fail(InvMMError(f"The KL became {self.kl} by step {self.step}; try a smaller learning_rate."))

    def take_check(self, outcome: Check) -> None:
        """Move the weight, remember the check, and end where it was passed or the last."""
        window = self._losses[-self._engine.recipe.window :]
        average = sum(window) / len(window)
        self.trace.append(Point(self.step, average, self.kl, self.weight.value, outcome.score))
        self.weight.check(average)
        self.last_check = outcome
        last = self.step >= self.max_steps
        if outcome.passed and (self._engine.recipe.stop or last):
            self.status = Status.REPLICATED
            return
        if self._path and self._engine.recipe.responses:
            self._remember(outcome)
        if last:
            self.status = Status.EXHAUSTED
        elif self._path:
            self._path.nats *= 2

    def _remember(self, failed: Check) -> None:
        """Where the search is, if more samples are replicas here than at any check before."""
        hits = failed.hits(self._engine.threshold)
        scale = max(hits, key=lambda scale: hits[scale])
        if hits[scale] > (self._closest.hits if self._closest else 0):
            self._closest = _Place(
                hits[scale], failed.at(scale), _copied(self.noise.parameters()), _copied(self.condition.parameters())
            )

    def go_back(self) -> Check | None:
        """The check to measure after: the passed one, or the one with most replicas, to where the search goes back."""
        if self.status is Status.EXHAUSTED and self._path and self._closest:
            _restore(self.noise.parameters(), self._closest.noise, "noise")
            _restore(self.condition.parameters(), self._closest.condition, "condition")
            self._path.resume()
            self.last_check = self._closest.check
            return self.last_check
        return self.last_check if self.status is Status.REPLICATED else None

    def measure(self, attempt: Callable[[Trial], list[bool]]) -> None:
        """Fit the dose-response curve, take q to its dose if a check was passed, and confirm it, as the recipe asks.

        Args:
            attempt: Tells which samples of a trial replicate.
        """
        recipe = self._engine.recipe
        if self._path and recipe.responses:
            reached, passed = self._path.nats, self.status is Status.REPLICATED
            furthest = recipe.first_dose * 2.0 ** (recipe.max_steps // recipe.check_every - 1)
            outcomes: tuple[Outcome, ...] = ()
            for _, share in zip(range(recipe.responses // recipe.check_images), cycle(DRAWN_AT), strict=False):
                trial = self.trial(recipe.check_images)
                outcomes += tuple(map(Outcome, self._path.distances(trial.noise), attempt(trial)))
                self._path.move(min(Response(outcomes).dose(share).nats, furthest))
            self._response = Response(outcomes)
            self._path.move(self._response.dose(recipe.rate).nats if passed else reached)
        if recipe.confirm:
            hits = attempt(self.trial(recipe.confirm))
            self._confirmed = Count(sum(hits), len(hits))

    def fail(self, error: Exception) -> None:
        """End the search with the error in one sentence, and the traceback where the error is unexpected."""
        self.status = Status.FAILED
        if isinstance(error, InvMMError):
            self.error = str(error)
        else:
            self.error = " ".join(f"{type(error).__name__}: {error}".split())
            self.traceback = "".join(traceback.format_exception(error))

    def result(self) -> Result:
        """What the ended search found."""
        found = Result(
            index=self.index,
            name=self.target.name,
            digest=self.target.digest,
            caption=self.target.caption,
            status=self.status or Status.EXHAUSTED,
            steps=self.step,
            trace=tuple(self.trace),
            seconds_steps=self.seconds_steps,
            seconds_checks=self.seconds_checks,
            error=self.error,
            traceback=self.traceback,
        )
        if self.error:
            return found
        return replace(
            found,
            kl=self.kl,
            dimensions=self.x_0[0].numel(),
            check=self.last_check,
            response=self._response,
            confirmed=self._confirmed,
            noise={name: tensor.detach().cpu() for name, tensor in self.noise.parameters().items()},
            condition={name: tensor.detach().cpu() for name, tensor in self.condition.parameters().items()},
            prompt=self.condition.prompt(),
        )


@dataclass(frozen=True)
class _Place:
    """Where a search by dose was at a failed check: so many replicas at one guidance scale, and its parameters."""

    hits: int
    check: Check
    noise: Mapping[str, Tensor]
    condition: Mapping[str, Tensor]


@dataclass(frozen=True)
class _Draw:
    """S noises, times and contexts of one image."""

    noise: Tensor
    t: Tensor
    context: Context


class _Engine:
    """The parts and settings of a run, and what is done to all searches at once."""

    def __init__(
        self,
        backbone: Backbone,
        similarity: Similarity,
        family: NoiseFamily,
        recipe: Recipe,
        seed: int,
        micro_batch: int | None,
    ) -> None:
        self.backbone = backbone
        self.similarity = similarity
        self.family = family
        self.recipe = recipe
        self.seed = seed
        self.micro_batch = micro_batch or recipe.draws
        self.threshold = similarity.threshold if recipe.threshold is None else recipe.threshold
        self.apart = micro_batch is None

    def advance(self, searches: Sequence[Search], on_step: Callable[[Sequence[Search]], None] | None) -> None:
        """C steps of every search, then its check."""
        started = time.perf_counter()
        going = list(searches)
        with torch.inference_mode(mode=False), torch.enable_grad():
            for _ in range(self.recipe.check_every):
                self._isolated(self._descend, _drawn(Search.draw, going))
                going = [search for search in going if not search.status]
                if on_step:
                    on_step(going)
        for search in going:
            search.settle()
        stepped = time.perf_counter()
        going = [search for search in going if not search.status]
        whole = [search for search in going if not self.recipe.stop or search.step >= search.max_steps]
        early = [search for search in going if search not in whole]
        for jobs in self._trials(early):
            self._isolated(self._check, jobs)
        for jobs in self._trials(whole):
            self._isolated(self._complete_check, jobs)
        for search in going:
            if closest := search.go_back():
                self._isolated(self._measure, [(search, closest)])
        for search in searches:
            search.seconds_steps += (stepped - started) / len(searches)
            search.seconds_checks += (time.perf_counter() - stepped) / len(searches)

    def _isolated(self, work: Callable[[Sequence[tuple[Search, T]]], None], jobs: Sequence[tuple[Search, T]]) -> None:
        """Do the work on all; where it raises, on each alone, so that only the culprits fail."""
        try:
            if jobs:
                work(jobs)
        except Exception as error:
            if len(jobs) == 1:
                jobs[0][0].fail(error)
            else:
                for job in jobs:
                    self._isolated(work, [job])

    def _fitting(self, work: Callable[[int], T]) -> T:
        """Do the work with ``micro_batch`` rows at once, and with half as many from then on where memory runs out.

        Raises:
            InvMMError: It runs out for a single row, too.
        """
        while True:
            try:
                return work(self.micro_batch)
            except RuntimeError as error:
                if not should_reduce_batch_size(error):
                    raise
                if self.micro_batch == 1:
                    raise InvMMError(
                        "Memory ran out with a single row in the network; take a lower precision, or a device "
                        "with more memory."
                    ) from error
            # Only now that the error is forgotten, and with it all that the failed call held.
            clear_device_cache(garbage_collection=True)
            self.micro_batch //= 2
            _log.warning("Memory ran out, so at most %d rows go through the network at once now.", self.micro_batch)

    def _descend(self, jobs: Sequence[tuple[Search, _Draw]]) -> None:
        """One Adam step each. The network sees at most ``micro_batch`` rows, and gradients go to its inputs alone."""
        searches = [search for search, _ in jobs]
        n = torch.cat([draw.noise for _, draw in jobs])
        t = torch.cat([draw.t for _, draw in jobs])
        context = join([draw.context for _, draw in jobs])
        x_0 = torch.cat([search.x_0.expand(self.recipe.draws, *search.x_0.shape[1:]) for search in searches])
        searched = [name for name, tensor in context.items() if tensor.requires_grad]
        inputs = [n, *(context[name] for name in searched)]
        # Scaled up on its way through the network, so that half precision does not lose the gradient of a mean over
        # many dimensions; a power of two changes no digit.
        scale = 1 << (n[0].numel() - 1).bit_length()

        def gradients(cut: slice) -> tuple[Tensor, ...]:
            """The losses of some rows, and their gradients with respect to the inputs."""
            leaves = [tensor[cut].detach().requires_grad_() for tensor in inputs]
            told = {**rows(context, cut), **dict(zip(searched, leaves[1:], strict=True))}
            alpha_t, sigma_t = (broadcast(level, n) for level in self.backbone.schedule(t[cut]))
            x0_hat = predict_x0(self.backbone, alpha_t * x_0[cut] + sigma_t * leaves[0], t[cut], told)
            if not x0_hat.requires_grad:
                raise InvMMError("The backbone's predict_x0 lets no gradient through to x_t; remove its no_grad.")
            row_losses = (x0_hat - x_0[cut]).square().flatten(1).mean(dim=1)
            return row_losses.detach(), *torch.autograd.grad(scale * row_losses.sum(), leaves, materialize_grads=True)

        portions = self._fitting(lambda size: [gradients(cut) for cut in chunks(len(n), size)])
        losses, *received = (torch.cat(parts) for parts in zip(*portions, strict=True))
        for search in searches:
            search.forget_gradients()
        weights = torch.tensor([search.weight.value for search in searches], device=n.device)
        kl = torch.stack([search.latest.kl() for search in searches])
        shares = [gradient / (scale * self.recipe.draws) for gradient in received]
        torch.autograd.backward([weights @ kl, *inputs], [None, *shares])
        means = losses.view(len(searches), self.recipe.draws).mean(dim=1)
        for search, loss in zip(searches, means, strict=True):
            search.take_step(loss)

    def _trials(self, searches: Sequence[Search]) -> list[list[tuple[Search, Trial]]]:
        """What is checked together: all, or, where no micro-batch was chosen, each image alone.

        The last digits of a network's output depend on the rows it is given together.
        """
        trials = _drawn(lambda search: search.trial(self.recipe.check_images), searches)
        return [[trial] for trial in trials] if self.apart else [trials]

    def _check(self, jobs: Sequence[tuple[Search, Trial]], *, complete: bool = False) -> None:
        outcomes = self._outcomes([trial for _, trial in jobs], self.recipe, complete=complete)
        for (search, _), outcome in zip(jobs, outcomes, strict=True):
            search.take_check(outcome)

    def _outcomes(self, trials: Sequence[Trial], recipe: Recipe, *, complete: bool) -> list[Check]:
        return self._fitting(
            lambda size: check(
                self.backbone,
                self.similarity,
                trials,
                recipe,
                threshold=self.threshold,
                micro_batch=size,
                complete=complete,
            )
        )

    def _measure(self, jobs: Sequence[tuple[Search, Check]]) -> None:
        for search, closest in jobs:
            search.measure(partial(self._attempt, closest.best_scale))

    def _attempt(self, scale: float, trial: Trial) -> list[bool]:
        """Which samples of a trial replicate at a guidance scale."""
        recipe = replace(self.recipe, check_images=len(trial.noise), responses=0, guidance=(scale,))
        [outcome] = self._outcomes([trial], recipe, complete=True)
        return [value >= self.threshold for value in outcome.similarities[scale]]

    def _complete_check(self, jobs: Sequence[tuple[Search, Trial]]) -> None:
        self._check(jobs, complete=True)


def _drawn(draw: Callable[[Search], T], searches: Sequence[Search]) -> list[tuple[Search, T]]:
    """What each search draws; where that raises, memory running out for one, the search fails and is left out."""
    drawn = []
    for search in searches:
        try:
            drawn.append((search, draw(search)))
        except Exception as error:
            search.fail(error)
    return drawn


def _copied(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in parameters.items()}


def _restore(parameters: Mapping[str, Tensor], saved: Mapping[str, Tensor], what: str) -> None:
    if {name: tensor.shape for name, tensor in parameters.items()} != {name: t.shape for name, t in saved.items()}:
        raise InvMMError(f"The result's {what} does not fit this model and noise family: it was made with others.")
    with torch.no_grad():
        for name, tensor in parameters.items():
            tensor.copy_(saved[name])
