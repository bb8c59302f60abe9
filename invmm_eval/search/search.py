"""The search of one image: its state, its random numbers and its result."""

import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Generator, Tensor

from invmm_eval.device import to_device
from invmm_eval.errors import InvMMError
from invmm_eval.models.condition import Context, different_scales, repeat
from invmm_eval.models.schedule import uniform
from invmm_eval.search.checks import Trial, features_of, require_finite
from invmm_eval.search.common import Setup
from invmm_eval.search.estimators import Confirmation, Shifted
from invmm_eval.search.orientation import encoded
from invmm_eval.search.parameters import copied, restore
from invmm_eval.search.proposals import Proposal
from invmm_eval.search.ray import Place
from invmm_eval.search.result import Check, Point, Result, Status
from invmm_eval.search.sampling import Rejection
from invmm_eval.search.target import Target, generator
from invmm_eval.search.times import informative, least_cosines
from invmm_eval.statistics.response import Outcome


class Search:
    """The search of one image.

    Attributes:
        index: Position of the image in the run.
        target: The image.
        step: Number of optimizer steps taken.
        noise: q.
        condition: The condition of the model.
        optimizer: Moves the parameters of q and of the condition.
        trace: One point per check.
        last_check: The latest check; None before the first.
        status: How the search ended; None while it runs.
        error: What went wrong, in one sentence, where the status is ``failed``.
        traceback: The traceback of an unexpected error.
        estimates: The values of each estimator, by its name.
        shifted: The samples drawn so far from plain noise that was shifted along a ray, or from a proposal.
        sampled: Number of samples drawn since it ended, plain ones among them.
        rows: Network rows spent so far (see :mod:`invmm_eval.search.rows`).
    """

    def __init__(self, index: int, target: Target, setup: Setup) -> None:
        self.index = index
        self.target = target
        self.step = 0
        self.trace: list[Point] = []
        self.last_check: Check | None = None
        self.status: Status | None = None
        self.error: str | None = None
        self.traceback: str | None = None
        self.seconds_steps = 0.0
        self.seconds_checks = 0.0
        self.estimates: dict[str, Mapping[str, Any]] = {}
        self.sampled = 0
        self.rows = 0.0
        self._setup = setup
        self._losses: list[float] = []
        self._unread: list[Tensor] = []
        self._checked_kl = 0.0
        self._distances: list[float] = []
        self._best_place: _Place | None = None
        self.shifted: list[Shifted] = []

    def start(self) -> None:
        """Encode the image, and make q, the condition, the optimizer and the random numbers.

        Raises:
            InvMMError: The image does not fit the model, or a part refuses it.
        """
        setup, image, recipe = self._setup, self.target.image, self._setup.recipe
        backbone = setup.backbone
        if tuple(image.shape) != backbone.image_shape:
            raise InvMMError(
                f"The image is {image.dtype} of shape {tuple(image.shape)}; this model takes torch.uint8 of shape "
                f"{backbone.image_shape} (invmm_eval.audits.pictures.prepare converts it)."
            )
        with torch.no_grad():
            pixels = to_device(image, backbone.device)[None].float() / 255
            self.x_0 = encoded(backbone, setup.similarity, self.target, pixels, setup.seed)
            self.features = features_of(setup.similarity, pixels)
        self.noise = setup.family(self.x_0[0])
        self.condition = backbone.condition(self.target.caption)

        def mean() -> Tensor:
            return setup.common.mean(self.x_0, self.condition)

        def from_mean() -> Tensor:
            return (self.x_0 - mean())[0]

        self.optimizer = setup.optimizer(self.noise.parameters(), self.condition.parameters(), recipe, from_mean)
        self._times: Tensor | None = None
        self._rejection: Rejection | None = None
        if recipe.times == "informative" or recipe.reject > -1:
            distance = from_mean().norm().item()
            if recipe.times == "informative":
                self._times = informative(backbone.schedule, distance).cpu()
            if recipe.reject > -1:
                least = least_cosines(backbone.schedule, distance, recipe.sampler_steps, recipe.reject)
                cosines = {step: torch.tensor([cosine]) for step, cosine in least.items()}
                self._rejection = Rejection(self.x_0, mean(), cosines)
        seed, digest = setup.seed, self.target.digest
        self._steps = generator(seed, digest, "steps")
        self._checks = generator(seed, digest, "checks")
        self._step_contexts = generator(seed, digest, "step contexts", backbone.device)
        self._check_contexts = generator(seed, digest, "check contexts", backbone.device)

    @property
    def max_steps(self) -> int:
        """Maximum number of steps."""
        return self._setup.recipe.max_steps

    @property
    def loss(self) -> float:
        """Mean squared error of the estimates of x_0 in the latest step; NaN before the first."""
        latest: Sequence[Tensor | float] = self._unread[-1:] or self._losses[-1:]
        return float(latest[0]) if latest else math.nan

    @property
    def kl(self) -> float:
        """KL of q now, in nats per dimension."""
        with torch.no_grad():
            return float(self.noise.kl())

    @property
    def _is_last(self) -> bool:
        """Whether the budget is spent, in steps or in nats."""
        recipe = self._setup.recipe
        spent = recipe.max_nats is not None and self.kl * self.x_0[0].numel() >= recipe.max_nats
        return spent or self.step >= recipe.max_steps

    def draw(self) -> "Draw":
        """The random numbers of one step."""
        backbone, n = self._setup.backbone, self._setup.recipe.draws
        noise = self.noise.rsample(n, self._steps)
        t = backbone.schedule.draw(n, self._steps) if self._times is None else uniform(self._times, n, self._steps)
        return Draw(self, noise, to_device(t, backbone.device), self.condition.rsample(n, self._step_contexts))

    def draw_trial(self, n: int | None = None, rsample: Callable[[int, Generator], Tensor] | None = None) -> Trial:
        """The random numbers of a check with n samples per guidance scale; None takes the criterion's number.

        The last check draws all samples, and so does every one where none ends the search. ``rsample`` draws the noises
        instead of q.
        """
        shared = self._setup.recipe.shared_context
        scales = different_scales(self.condition, self._setup.recipe.guidance)
        n = n or self._setup.criterion.samples(len(scales))
        with torch.no_grad():
            context = self.condition.rsample(1 if shared else n, self._check_contexts)
            return Trial(
                noise=(rsample or self.noise.rsample)(n, self._checks),
                context=repeat(context, n) if shared else context,
                null=self.condition.null(n),
                features=self.features,
                guidance=scales,
                rejection=self._rejection,
                complete=not self._setup.recipe.stop or self._is_last,
            )

    def count_step(self, loss: Tensor | None) -> None:
        """Add a step that the optimizer took. The loss stays unread on its device, so that no step waits for it.

        Args:
            loss: None where the optimizer used no gradients.
        """
        if loss is not None:
            self._unread.append(loss)
        self.step += 1

    def unread(self, trials: Sequence[Trial]) -> Tensor:
        """What is known on the device before the samples of trials are drawn, in one dimension.

        The losses since the last check, the KL of q, and where along the ray the noises from q lie.
        """
        ray = self.optimizer.ray
        with torch.no_grad():
            places = [ray.distances(trial.noise) for trial in trials if ray and not trial.proposal]
            return torch.cat([torch.stack([*self._unread, self.noise.kl()]), *places])

    def read(self, unread: Sequence[float]) -> None:
        """Take the values of :meth:`unread`, which the host has read for all searches at once.

        Raises:
            InvMMError: A loss or the KL is not finite.
        """
        losses = unread[: len(self._unread)]
        self._checked_kl, *self._distances = unread[len(losses) :]
        self._unread.clear()
        self._losses.extend(losses)
        for step, loss in enumerate(losses, start=self.step - len(losses) + 1):
            if not math.isfinite(loss):
                raise InvMMError(f"The loss became {loss} at step {step}; try float32, or check the model's weights.")
        if not math.isfinite(self._checked_kl):
            raise InvMMError(f"The KL became {self._checked_kl} by step {self.step}; try a smaller learning_rate.")

    def record_check(self, trial: Trial, check: Check) -> None:
        """Add a check to the trace, and end the search or let its optimizer adapt.

        Raises:
            InvMMError: A similarity that decides is not finite.
        """
        setup = self._setup
        if not check.passed:
            require_finite(setup.similarity, chain(*check.similarities.values()))
        window = self._losses[-setup.recipe.window :]
        average_loss = sum(window) / len(window) if window else math.nan
        self.trace.append(Point(self.step, average_loss, self._checked_kl, self.optimizer.weight, check.score))
        self.last_check = check
        self.remember_samples(trial, check)
        self.status = setup.criterion.status(self.trace, passed=check.passed, last=self._is_last)
        if self.status is not Status.REPLICATED and self.optimizer.ray:
            self._remember_place(check, self.optimizer.ray.place())
        if self.status is None:
            self.optimizer.after_check(average_loss)

    def remember_samples(self, trial: Trial, check: Check) -> None:
        """Keep which noises of the ray, or of a proposal, gave copies.

        For the share only those of the ray count whose q has plain noise's variance.
        """
        ray = self.optimizer.ray
        if ray is None:
            return
        proposal, distances = trial.proposal, [] if trial.proposal else self._distances
        if proposal is None and math.isclose(self._checked_kl * ray.direction.numel(), ray.nats, rel_tol=1e-3):
            proposal = Proposal(math.sqrt(2 * ray.nats) * ray.direction)
        for scale, values in check.similarities.items():
            if scale and self.condition.parameters() and self.status is None:
                continue  # The prompt moves on, and these samples are none of the one that is found.
            hits = [value >= self._setup.threshold for value in values]
            ray.outcomes.setdefault(scale, []).extend(map(Outcome, distances, hits))
            if proposal:
                copies = trial.noise[to_device(torch.tensor(hits).nonzero()[:, 0], trial.noise.device)]
                self.shifted.append(Shifted(scale, proposal, len(values), copies))

    def _remember_place(self, check: Check, ray: Place) -> None:
        """Keep the parameters if more samples are replicas than at any earlier check, for the estimators."""
        if all(isinstance(estimator, Confirmation) for estimator in self._setup.estimators):
            return
        hits = check.hits(self._setup.threshold)
        scale = max(hits, key=lambda scale: hits[scale])
        if hits[scale] > (self._best_place.hits if self._best_place else 0):
            parameters = (copied(part.parameters()) for part in (self.noise, self.condition))
            self._best_place = _Place(hits[scale], check.at(scale), ray, *parameters)

    def return_to_best_check(self) -> Check | None:
        """Return q to the check with most replicas, where a search along a ray was exhausted.

        Returns:
            That check, or the passed one; None if there is neither.
        """
        if self.status is Status.EXHAUSTED and self.optimizer.ray and self._best_place:
            restore(self.noise.parameters(), self._best_place.noise, "noise")
            restore(self.condition.parameters(), self._best_place.condition, "condition")
            self.optimizer.ray.return_to(self._best_place.ray)
            self.last_check = self._best_place.check
            return self.last_check
        return self.last_check if self.status is Status.REPLICATED else None

    def fail(self, error: Exception) -> None:
        """End the search with the error in one sentence, and the traceback where the error is unexpected."""
        self.status = Status.FAILED
        if isinstance(error, InvMMError):
            self.error = str(error)
        else:
            self.error = " ".join(f"{type(error).__name__}: {error}".split())
            self.traceback = "".join(traceback.format_exception(error))

    def result(self) -> Result:
        """The result of an ended search."""
        assert self.status is not None
        found: dict[str, Any] = {}
        if self.status is not Status.FAILED:
            found = {
                "kl": self.kl,
                "dimensions": self.x_0[0].numel(),
                "check": self.last_check,
                "noise": {name: tensor.detach().cpu() for name, tensor in self.noise.parameters().items()},
                "condition": {name: tensor.detach().cpu() for name, tensor in self.condition.parameters().items()},
                "prompt": self.condition.prompt(),
                "estimates": self.estimates,
            }
        return Result(
            index=self.index,
            name=self.target.name,
            digest=self.target.digest,
            caption=self.target.caption,
            picture_bits=self.target.bits,
            status=self.status,
            steps=self.step,
            trace=tuple(self.trace),
            seconds_steps=self.seconds_steps,
            seconds_checks=self.seconds_checks,
            rows=round(self.rows),
            error=self.error,
            traceback=self.traceback,
            **found,
        )


@dataclass(frozen=True)
class Draw:
    """S noises, times and contexts of one search, for one step."""

    search: Search
    noise: Tensor
    t: Tensor
    context: Context


@dataclass(frozen=True)
class _Place:
    """The parameters of a search at a check, and the number of replicas there at one guidance scale."""

    hits: int
    check: Check
    ray: Place
    noise: Mapping[str, Tensor]
    condition: Mapping[str, Tensor]
