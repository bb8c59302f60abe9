"""What a search found out about one image."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from invmm_eval.errors import InvMMError
from invmm_eval.search.check import Check
from invmm_eval.search.status import Status as Status
from invmm_eval.statistics.response import HALF, MOST, Count, Dose, Outcome, Response, Share


class Point(NamedTuple):
    """Where a search stood at one check: step, average loss, KL per dimension, lambda, and the check's score."""

    step: int
    loss: float
    kl: float
    weight: float
    score: float


@dataclass(frozen=True)
class Result:
    """One image's outcome.

    Attributes:
        index: Position among the images of the run.
        name: What its user calls it.
        digest: SHA-256 of its pixels, the identity that its random numbers derive from.
        caption: The text that goes with it, where one was given.
        status: How the search ended.
        kl: ``KL(q || N(0, I))`` in nats per dimension where it ended; None where it failed.
        dimensions: How many the noise has; None where it failed.
        steps: Adam steps taken.
        check: The last check of the search; complete (all K samples at all scales) where the search was exhausted. Of
            an exhausted search by dose that has a response, the check that most samples passed, at that scale.
        noise: Parameters of q by name, on the CPU.
        condition: Parameters of the condition by name, on the CPU.
        prompt: The prompt that was searched or given, as a person can read it; None where the model takes none.
        trace: One point a check.
        seconds_steps: This image's share of the time spent on steps.
        seconds_checks: Its share of the time spent on checks.
        response: The dose-response curve, where the search was by dose and a sample was a replica at any check.
        confirmed: Replicas among fresh samples from q, where the recipe asked for some.
        error: One sentence, where the status is ``failed``.
        traceback: Full text of an unexpected error; None for an :class:`InvMMError`.
        estimates: The values of each further estimator, by its name (see :mod:`invmm_eval.search.estimators`).
    """

    index: int
    name: str
    digest: str
    status: Status
    kl: float | None = None
    dimensions: int | None = None
    steps: int = 0
    check: Check | None = None
    noise: Mapping[str, Tensor] = field(default_factory=dict)
    condition: Mapping[str, Tensor] = field(default_factory=dict)
    prompt: str | None = None
    trace: tuple[Point, ...] = ()
    seconds_steps: float = 0.0
    seconds_checks: float = 0.0
    response: Response | None = None
    confirmed: Count | None = None
    error: str | None = None
    caption: str | None = None
    traceback: str | None = None
    estimates: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def invmm(self) -> float:
        """The measure: the KL where the image was replicated, infinity where it was not, NaN where it failed."""
        if self.status is Status.FAILED or self.kl is None:
            return math.nan
        return self.kl if self.status is Status.REPLICATED else math.inf

    @property
    def nats(self) -> float | None:
        """InvMM times the dimensions: nats in all, which is what the bound of :mod:`invmm_eval.statistics.bound` takes.

        None where the image was not replicated.
        """
        if self.status is not Status.REPLICATED or self.dimensions is None:
            return None
        return self.invmm * self.dimensions

    @property
    def ed50(self) -> Dose | None:
        """The nats in all at which half of the samples replicate, where the search was by dose."""
        return self.response.dose(HALF) if self.response else None

    @property
    def ed90(self) -> Dose | None:
        """The nats in all at which nine in ten do."""
        return self.response.dose(MOST) if self.response else None

    @property
    def plain_share(self) -> Share | None:
        """The share of replicas that the dose-response curve expects in plain sampling, where it can tell."""
        return self.response.plain() if self.response else None

    @property
    def similarity(self) -> float | None:
        """The last check's score: the least similarity at the best guidance scale."""
        return self.check.score if self.check else None

    def record(self) -> dict[str, Any]:
        """All but the tensors, as JSON can hold it: infinity and NaN are null, told apart by the status."""
        drawn = self.check.similarities if self.check else {}
        similarities = {str(scale): [_finite(value) for value in values] for scale, values in drawn.items()}
        return {
            "index": self.index,
            "name": self.name,
            "digest": self.digest,
            "caption": self.caption,
            "status": str(self.status),
            "invmm": _finite(self.invmm),
            "kl": self.kl,
            "dimensions": self.dimensions,
            "steps": self.steps,
            "similarity": _finite(self.similarity),
            "passed": self.check.passed if self.check else None,
            "similarities": similarities,
            "prompt": self.prompt,
            "trace": [[_finite(value) for value in point] for point in self.trace],
            "seconds_steps": round(self.seconds_steps, 3),
            "seconds_checks": round(self.seconds_checks, 3),
            "outcomes": [list(outcome) for outcome in self.response.outcomes] if self.response else [],
            "ed50": _listed(self.ed50),
            "ed90": _listed(self.ed90),
            "plain_share": _listed(self.plain_share),
            "confirmed": _listed(self.confirmed),
            "rate": self.confirmed.rate if self.confirmed else None,
            "rate_interval": _listed(self.confirmed and self.confirmed.interval),
            "estimates": {name: dict(values) for name, values in self.estimates.items()},
            "error": self.error,
            "traceback": self.traceback,
        }

    def tensors(self) -> dict[str, Tensor]:
        """What :meth:`record` leaves out: q, the condition and the samples, contiguous, by one name each."""
        tensors = {f"noise.{name}": tensor for name, tensor in self.noise.items()}
        tensors |= {f"condition.{name}": tensor for name, tensor in self.condition.items()}
        if self.check:
            tensors |= {f"samples.{scale}": images for scale, images in self.check.samples.items()}
        return {name: tensor.contiguous() for name, tensor in tensors.items()}

    def save(self, path: str | Path) -> None:
        """Write one safetensors file: :meth:`tensors`, with :meth:`record` as JSON in its header."""
        save_file(self.tensors(), path, {"invmm": json.dumps(self.record())})

    @classmethod
    def load(cls, path: str | Path) -> "Result":
        """Read what :meth:`save` wrote.

        Raises:
            InvMMError: The file is missing, damaged, or not a saved result.
        """
        try:
            with safe_open(path, "pt") as file:
                record = json.loads(file.metadata()["invmm"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise InvMMError(f"{path} is not a saved result that can be read: {error}") from error
        return cls.from_record(record, tensors)

    @classmethod
    def from_record(cls, record: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None) -> "Result":
        """The result of a :meth:`record` and of its :meth:`tensors`, which are looked up when asked for.

        Without them it has no q, condition and samples.
        """
        tensors = {} if tensors is None else tensors
        check = None
        if record["passed"] is not None:
            similarities = {float(scale): _floats(values) for scale, values in record["similarities"].items()}
            check = Check(record["passed"], similarities, _Part("samples.", tensors, float))
        return cls(
            **{key: record[key] for key in _KEPT},
            traceback=record.get("traceback"),
            estimates=record.get("estimates", {}),
            status=Status(record["status"]),
            check=check,
            noise=_Part("noise.", tensors, str),
            condition=_Part("condition.", tensors, str),
            response=Response(tuple(Outcome(*outcome) for outcome in record["outcomes"]))
            if record["outcomes"]
            else None,
            confirmed=Count(*record["confirmed"]) if record["confirmed"] else None,
            trace=tuple(Point(int(step), *_floats(values)) for step, *values in record["trace"]),
        )


_KEPT = (
    *("index", "name", "digest", "caption", "kl", "dimensions", "steps", "prompt"),
    *("seconds_steps", "seconds_checks", "error"),
)
"""What a record holds as it is."""


def rank(result: Result) -> tuple[int, bool, float]:
    """The key that sorts the most memorized first, then those not replicated, then the failed.

    Of images that were not replicated the KL says nothing: those of which some samples are replicas stand in the order
    of ED50, before the others in the order of their similarity.
    """
    order = list(Status).index(result.status)
    if result.status is Status.REPLICATED:
        return order, False, result.invmm
    if result.ed50:
        return order, False, result.ed50.nats
    return order, True, -(result.similarity or 0.0)


K = TypeVar("K")


class _Part(Mapping[K, Tensor]):
    """The tensors whose names begin with a prefix, by what follows it."""

    def __init__(self, prefix: str, tensors: Mapping[str, Tensor], key: Callable[[Any], K]) -> None:
        self._prefix = prefix
        self._tensors = tensors
        self._key = key

    def __getitem__(self, key: K) -> Tensor:
        return self._tensors[f"{self._prefix}{self._key(key)}"]

    def __iter__(self) -> Iterator[K]:
        names = (name for name in self._tensors if name.startswith(self._prefix))
        return (self._key(name.removeprefix(self._prefix)) for name in names)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _listed(values: tuple[float, ...] | None) -> list[float] | None:
    return None if values is None else list(values)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _floats(values: Sequence[float | None]) -> tuple[float, ...]:
    return tuple(math.nan if value is None else value for value in values)
