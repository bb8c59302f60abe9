"""The outcome of a search for one image."""

import json
import math
from collections import ChainMap
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from invmm_eval.errors import InvMMError
from invmm_eval.search.late import Late, LateField
from invmm_eval.search.records import best_in, outcomes_in, part, prompt_in, saved_record, similarities_in, trace_in
from invmm_eval.search.sentence import sentence
from invmm_eval.search.sheet import figure, html, picture_of
from invmm_eval.search.status import MEMORIZED, Verdict
from invmm_eval.search.status import Status as Status
from invmm_eval.search.trace import Check as Check
from invmm_eval.search.trace import Judged as Judged
from invmm_eval.search.trace import Point as Point
from invmm_eval.search.upgrade import CONFIRMATION as CONFIRMATION
from invmm_eval.search.upgrade import DOSE_RESPONSE as DOSE_RESPONSE
from invmm_eval.search.upgrade import PLAIN_SHARE as PLAIN_SHARE
from invmm_eval.search.upgrade import upgraded_record
from invmm_eval.statistics.bound import least_share
from invmm_eval.statistics.importance import PlainShare
from invmm_eval.statistics.response import Count, Dose, Outcome, Response
from invmm_eval.strict_json import finite, sealed

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image


@dataclass(frozen=True, repr=False)
class Result:
    """The outcome for one image.

    Attributes:
        index: Position of the image in the run.
        name: Its name, chosen by the user.
        digest: SHA-256 of its pixels, from which its random numbers derive.
        status: How the search ended.
        kl: ``KL(q || N(0, I))`` of the last q, in nats per dimension; None where the search failed.
        dimensions: Number of dimensions of the noise; None where the search failed.
        steps: Number of optimizer steps taken.
        check: The last check; complete (all K samples at all scales) where the search was exhausted. Of an exhausted
            search by dose that has a response, the check that most samples passed, at that scale.
        noise: Parameters of q by name, on the CPU.
        condition: Parameters of the condition by name, on the CPU.
        prompt: The searched or given prompt, as readable text; None where the model takes none, empty where the text
            of a searched one was not kept.
        picture_bits: Size of the image as PNG (:attr:`~invmm_eval.search.target.Target.bits`).
        trace: One point per check.
        seconds_steps: This image's share of the time spent on steps.
        seconds_checks: This image's share of the time spent on checks.
        rows: Network rows spent on the image (:mod:`invmm_eval.search.rows`); None in results of version 0.1.
        error: One sentence, where the status is ``failed``.
        caption: The image's caption, if any.
        traceback: Full text of an unexpected error; None for an :class:`InvMMError`.
        estimates: The values of each estimator, by its name (see :mod:`invmm_eval.search.estimators`).
        target: The image as uint8 ``(C, H, W)``, or the file whose picture begins with it; None where it is not kept.
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
    prompt: LateField[str | None] = LateField(None)  # noqa: RUF009
    picture_bits: int | None = None
    trace: LateField[Sequence[Point]] = LateField(())  # noqa: RUF009
    seconds_steps: float = 0.0
    seconds_checks: float = 0.0
    rows: int | None = None
    error: str | None = None
    caption: str | None = None
    traceback: str | None = None
    estimates: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    target: Tensor | Path | None = field(default=None, compare=False)

    def placed(self, index: int, name: str, image: Tensor) -> "Result":
        """The same for an equal image at another place of the run."""
        placed = copy(self)  # reads nothing, which replace would
        placed.__dict__.update(index=index, name=name, target=image)
        return placed

    @classmethod
    def failure(cls, index: int, name: str, digest: str, caption: str | None, error: str) -> "Result":
        """The result of an image that could not be measured; one that could not be read has an empty digest."""
        return cls(index, name, digest, Status.FAILED, caption=caption, error=error)

    @property
    def invmm(self) -> float:
        """The measure: the KL where the image was replicated, infinity where it was not, NaN where it failed."""
        if self.status is Status.FAILED or self.kl is None:
            return math.nan
        return self.kl if self.status is Status.REPLICATED else math.inf

    @property
    def nats(self) -> float | None:
        """InvMM times the number of dimensions: nats over all dimensions; None where the image was not replicated."""
        if self.status is not Status.REPLICATED or self.dimensions is None:
            return None
        return self.invmm * self.dimensions

    @cached_property
    def response(self) -> Response | None:
        """The dose-response curve, where the search was by dose and a sample was a replica at any check."""
        values = self.estimates.get(DOSE_RESPONSE)
        outcomes = values and values.get("outcomes")
        return Response(tuple(Outcome(*outcome) for outcome in outcomes)) if outcomes else None

    @property
    def confirmed(self) -> Count | None:
        """Replicas among new samples from q, where the recipe requested some."""
        values = self.estimates.get(CONFIRMATION)
        return Count(values["hits"], values["drawn"]) if values else None

    @property
    def ed50(self) -> Dose | None:
        """The dose, in nats over all dimensions, at which half of the samples replicate; None where none tells it."""
        return self._dose("ed50")

    @property
    def ed90(self) -> Dose | None:
        """The dose at which nine in ten samples replicate."""
        return self._dose("ed90")

    def _dose(self, name: str) -> Dose | None:
        values = self.estimates.get(DOSE_RESPONSE, {}).get(name)
        return Dose(*values) if values else None

    @property
    def plain_share(self) -> PlainShare | None:
        """The share of copies among plain samples, by importance sampling; None where it was not estimated."""
        values = self.estimates.get(PLAIN_SHARE)
        if not values:
            return None
        high = values.get("high", 1.0)
        rate = min(values["share"], high)
        return PlainShare(rate, min(values["low"], rate), high)

    @property
    def least_share(self) -> float:
        """Lower limit of the share of copies among plain samples, at 97.5 % confidence; 0 where none is known.

        It is that of :attr:`plain_share`; without one, where the rate of copies from q was measured, that of
        :mod:`invmm_eval.statistics.bound` at the lower limit of the rate.
        """
        if self.plain_share:
            return self.plain_share.low
        if self.confirmed is None or self.kl is None or self.dimensions is None:
            return 0.0
        return least_share(self.kl * self.dimensions, self.confirmed.interval[0])

    @property
    def verdict(self) -> Verdict:
        """What the result means for someone who must decide (docs/number.md)."""
        if self.status is Status.FAILED:
            return Verdict.FAILED
        if self.least_share >= MEMORIZED:
            return Verdict.MEMORIZED
        shared = self.estimates.get(PLAIN_SHARE, {})
        copied = DOSE_RESPONSE in self.estimates or shared.get("copies") or shared.get("plain_copies")
        return Verdict.REPLICABLE if copied or self.status is Status.REPLICATED else Verdict.NOT_REPLICATED

    @property
    def prompted(self) -> bool:
        """Whether there is a :attr:`prompt`, whose text is not read for this."""
        return self.__dict__["prompt"] is not None

    @cached_property
    def captioned(self) -> bool:
        """Whether the :attr:`prompt` is the caption, which is known without reading it."""
        return self.caption is not None and self.__dict__["prompt"] == self.caption

    @property
    def similarity(self) -> float | None:
        """The last check's score: the least similarity at the best guidance scale."""
        return self.check.score if self.check else None

    @property
    def picture(self) -> "Image | None":
        """The image and, beside it, its samples at the best guidance scale; None where one of them is not kept."""
        if self.check is None or self.target is None:
            return None
        return picture_of(self.target, self.check.samples[self.check.best_scale])

    def plot(self) -> "Figure":
        """The :attr:`picture` with what was found, as a figure of matplotlib."""
        return figure(self.words, self.picture)

    @property
    def words(self) -> str:
        """The image's name, the verdict and the sentence about plain sampling, in one line."""
        verdict = "" if self.verdict is Verdict.FAILED else f"{self.verdict}, "
        return f"{self.name or 'unnamed'}: {verdict}{sentence(self)}"

    def __repr__(self) -> str:
        return f"<Result {self.words}>"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return html(self.words, self.picture)

    def row(self) -> dict[str, Any]:
        """The values of :meth:`record` that others follow from, without how the search went: its trace, the similarity
        of each sample and the outcomes of a dose-response curve. Values of None are left out. A prompt is True if it is
        the caption, else empty. The verdict is there to be counted.
        """
        values: dict[str, Any] = {name: getattr(self, name) for name in _UNCHANGED}
        values |= {"status": str(self.status), "verdict": str(self.verdict)}
        values |= {name: round(values[name], 3) for name in ("seconds_steps", "seconds_checks")}
        if values["prompt"] is not None:
            values["prompt"] = values["prompt"] == self.caption or ""
        values["estimates"] = {name: dict(found) for name, found in self.estimates.items() if name != DOSE_RESPONSE}
        if curve := self.estimates.get(DOSE_RESPONSE):
            values["estimates"][DOSE_RESPONSE] = {name: curve[name] for name in ("ed50", "ed90")}
        if self.check:
            values |= {"similarity": finite(self.check.score), "guidance": self.check.best_scale}
            values |= {"passed": self.check.passed, "judged_by": str(self.check.judged_by)}
        return {name: value for name, value in values.items() if value is not None}

    def record(self) -> dict[str, Any]:
        """All values but the tensors, as JSON can hold them; infinity and NaN are null."""
        drawn = self.check.similarities if self.check else {}
        return {
            **upgraded_record(self.row()),
            "prompt": self.prompt,
            "invmm": finite(self.invmm),
            "similarities": {str(scale): [finite(value) for value in values] for scale, values in drawn.items()},
            "trace": [[finite(value) for value in point] for point in self.trace],
            "ed50": _listed(self.ed50),
            "ed90": _listed(self.ed90),
            "plain_share": _listed(self.plain_share),
            "verdict": str(self.verdict),
            "confirmed": _listed(self.confirmed),
            "rate": self.confirmed.rate if self.confirmed else None,
            "rate_interval": _listed(self.confirmed and self.confirmed.interval),
            "estimates": {name: dict(values) for name, values in self.estimates.items()},
        }

    def tensors(self) -> dict[str, Tensor]:
        """The values that :meth:`record` leaves out: q, the condition and the samples, contiguous, by name."""
        tensors = {f"noise.{name}": tensor for name, tensor in self.noise.items()}
        tensors |= {f"condition.{name}": tensor for name, tensor in self.condition.items()}
        if self.check:
            tensors |= {f"samples.{scale}": images for scale, images in self.check.samples.items()}
        return {name: tensor.contiguous() for name, tensor in tensors.items()}

    def save(self, path: str | Path) -> None:
        """Write a safetensors file: :meth:`tensors`, with :meth:`record` as JSON in its header."""
        save_file(self.tensors(), path, {"invmm": json.dumps(sealed(self.record()))})

    @classmethod
    def load(cls, path: str | Path) -> "Result":
        """Read a file that :meth:`save` wrote.

        Raises:
            InvMMError: The file is missing, damaged, or not a saved result.
        """
        try:
            with safe_open(path, "pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return cls.from_record(saved_record(path), tensors)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise InvMMError(f"{path} is not a saved result that can be read: {error}") from error

    @classmethod
    def from_record(
        cls,
        record: Mapping[str, Any],
        tensors: Mapping[str, Tensor] | None = None,
        whole: Mapping[str, Any] | None = None,
        target: Path | None = None,
    ) -> "Result":
        """The result of a :meth:`record` or a :meth:`row`, of this version of the package or an earlier one.

        Args:
            record: Keys that earlier versions did not write take their defaults.
            tensors: Those of :meth:`tensors`, looked up when they are used; None leaves out q, condition and samples.
            whole: The record of a row, read when what the row leaves out is looked at; None leaves that out.
            target: The file whose picture begins with the image.
        """
        record = upgraded_record(record)
        tensors = {} if tensors is None else tensors
        is_row = "trace" not in record
        whole = record if not is_row else {} if whole is None else whole
        estimates = dict(record["estimates"])
        if is_row and DOSE_RESPONSE in estimates:
            outcomes: Any = Late(outcomes_in, whole)
            estimates[DOSE_RESPONSE] = ChainMap(estimates[DOSE_RESPONSE], outcomes)
        check = None
        if record["passed"] is not None:
            check = Check(
                record["passed"],
                Late(similarities_in, whole) if is_row else similarities_in(whole),
                Late(part, tensors, "samples.", float),
                Judged(record["judged_by"]),
                best=best_in(record) if is_row else None,
            )
        values = {name: record[name] for name in _UNCHANGED}
        if is_row and record["prompt"] == "":
            values["prompt"] = partial(prompt_in, whole)
        return cls(
            **{**values, "estimates": estimates},
            target=target,
            status=Status(record["status"]),
            check=check,
            noise=Late(part, tensors, "noise.", str),
            condition=Late(part, tensors, "condition.", str),
            trace=partial(trace_in, whole) if is_row else trace_in(whole),
        )


_UNCHANGED = (
    *("index", "name", "digest", "caption", "kl", "dimensions", "steps", "prompt", "picture_bits"),
    *("seconds_steps", "seconds_checks", "rows", "error", "traceback", "estimates"),
)
"""The keys whose values a record holds unchanged."""


def rank(result: Result) -> tuple[int, float, float, float, float]:
    """The sort key that puts the most memorized images first: by verdict, share, InvMM, ED50 and similarity.

    The KL of an image that was not replicated says nothing.
    """
    return (
        list(Verdict).index(result.verdict),
        -result.plain_share.rate if result.plain_share else 0.0,
        result.invmm if result.status is Status.REPLICATED else math.inf,
        result.ed50.nats if result.ed50 else math.inf,
        -(result.similarity or 0.0),
    )


def _listed(values: tuple[float, ...] | None) -> list[float] | None:
    return None if values is None else list(values)
