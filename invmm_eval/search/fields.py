"""The fields of a result: one table that every face reads, from the terminal to the data set.

A new field is one entry of :data:`FIELDS` and one place where its value is computed, usually a property of
:class:`~invmm_eval.search.result.Result`. What third-party estimators compute (``Result.estimates``) joins the table by
itself: :func:`fields` adds a field for each of their values, with the name and the description they bring.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import pyarrow as pa

from invmm_eval.search.result import CONFIRMATION, DOSE_RESPONSE, Result, Status

Face = Literal["terminal", "html", "card", "dataset", "metric", "torchmetrics"]
"""Where fields are shown. The web page takes those of ``html``; CSV, Parquet and mlflow take those of ``dataset``."""

STATUS_WORDS = {Status.REPLICATED: "replicated", Status.EXHAUSTED: "not replicated", Status.FAILED: "failed"}
"""How people read a status."""

Interval = Callable[[Result], tuple[float, float] | None]

_ALL: frozenset[Face] = frozenset(get_args(Face))
_DATA: frozenset[Face] = frozenset({"dataset"})
_TABLES: frozenset[Face] = _ALL - {"metric", "torchmetrics"}
_NONE = "-"


def number(value: float) -> str:
    """A number as people read it: three significant digits, thousands separated."""
    if not math.isfinite(value):
        return "∞" if value > 0 else _NONE
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def share(value: float) -> str:
    """A share of samples in per cent: two significant digits, all shares below 0.01 % alike."""
    if 0 < value < 1e-4:
        return "<0.01%"
    return f"{value:.0%}" if value >= 0.1 or value == 0 else f"{100 * value:.2g}%"


def finite(value: Any) -> Any:
    """The value, or None if it is infinite or not a number, which JSON and tables cannot hold."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True)
class Field:
    """One field of a result.

    Attributes:
        name: Its column in tables and its key in what metrics return.
        type: The Arrow type of its values.
        description: What it is, its unit, and when it is null.
        value: Computes it from a result; None where it does not exist.
        shown: The faces that show it.
        heading: What people read above its column; the name if empty.
        form: Writes a value for people.
        interval: Computes the ends of its interval, which are columns ``NAME_low`` and ``NAME_high`` of their own.
    """

    name: str
    type: pa.DataType
    description: str
    value: Callable[[Result], Any]
    shown: frozenset[Face] = _ALL
    heading: str = ""
    form: Callable[[Any], str] = number
    interval: Interval | None = None

    @property
    def title(self) -> str:
        """What people read above its column."""
        return self.heading or self.name.replace("_", " ")

    @property
    def numeric(self) -> bool:
        """Whether its values are numbers, which tables align to the right."""
        return bool(pa.types.is_floating(self.type) or pa.types.is_integer(self.type))

    def text(self, result: Result) -> str:
        """The value for people, ``-`` where it does not exist."""
        value = self.value(result)
        return _NONE if value is None else self.form(value)

    def ends(self, result: Result) -> str:
        """The interval for people, such as ``0.2 to 1.3``; empty where it does not exist."""
        ends = self.interval(result) if self.interval else None
        return "" if ends is None else f"{self.form(ends[0])} to {self.form(ends[1])}"

    def full(self, result: Result) -> str:
        """The value for people, with its interval in parentheses."""
        ends = self.ends(result)
        return f"{self.text(result)} ({ends})" if ends else self.text(result)

    def columns(self) -> "Iterator[Field]":
        """The field, then one for each end of its interval."""
        yield self
        if self.interval:
            for end, which in enumerate(("low", "high")):
                description = f"{which} end of the 95 % interval of {self.name}"
                yield Field(
                    f"{self.name}_{which}", self.type, description, partial(_end, self.interval, end), self.shown
                )


def _end(interval: Interval, which: int, result: Result) -> float | None:
    ends = interval(result)
    return None if ends is None else ends[which]


FIELDS: tuple[Field, ...] = (
    Field("name", pa.string(), "what the image is called", lambda r: r.name, _TABLES, "image", str),
    Field("index", pa.int64(), "position among the images of the audit, from 0", lambda r: r.index, _DATA),
    Field("digest", pa.string(), "SHA-256 of the pixels at the model's size", lambda r: r.digest, _DATA),
    Field(
        "status",
        pa.string(),
        "replicated, exhausted (not replicated within the budget) or failed",
        lambda r: str(r.status),
        _ALL - {"torchmetrics"},
        form=lambda value: STATUS_WORDS[Status(value)],
    ),
    Field(
        "invmm",
        pa.float64(),
        "KL(q ‖ N(0, I)) in nats per dimension, small if the image is memorized; infinite, or null in files, if it was "
        "not replicated",
        lambda r: r.invmm,
        heading="InvMM",
    ),
    Field(
        "nats",
        pa.float64(),
        "InvMM times the number of dimensions: nats in total; null if the image was not replicated",
        lambda r: r.nats,
        _TABLES - {"terminal"},
        "nats in total",
    ),
    Field(
        "ed50",
        pa.float64(),
        "nats in total at which half of the samples are copies; null unless the search was by dose",
        lambda r: r.ed50 and r.ed50.nats,
        heading="ED50",
        interval=lambda r: r.ed50 and (r.ed50.low, r.ed50.high),
    ),
    Field(
        "ed90",
        pa.float64(),
        "nats in total at which 90 % of the samples are copies; null unless the search was by dose",
        lambda r: r.ed90 and r.ed90.nats,
        heading="ED90",
        interval=lambda r: r.ed90 and (r.ed90.low, r.ed90.high),
    ),
    Field(
        "plain_share",
        pa.float64(),
        "share of copies among ordinary samples, by the dose-response curve; null if the curve cannot tell",
        lambda r: r.plain_share and r.plain_share.rate,
        heading="plain share",
        form=share,
        interval=lambda r: r.plain_share and (r.plain_share.low, r.plain_share.high),
    ),
    Field(
        "rate",
        pa.float64(),
        "share of copies among fresh samples from q; null unless the recipe draws some (confirm)",
        lambda r: r.confirmed and r.confirmed.rate,
        form=share,
        interval=lambda r: r.confirmed and r.confirmed.interval,
    ),
    Field(
        "kl",
        pa.float64(),
        "KL(q ‖ N(0, I)) where the search ended, in nats per dimension; null if it failed",
        lambda r: r.kl,
        frozenset({"dataset", "metric"}),
    ),
    Field("dimensions", pa.int64(), "dimensions of the noise; null if it failed", lambda r: r.dimensions, _DATA),
    Field(
        "similarity",
        pa.float64(),
        "least similarity of the samples of the last check to the image; at the best guidance scale",
        lambda r: r.similarity,
        form=lambda value: f"{value:.2f}",
    ),
    Field(
        "guidance",
        pa.float64(),
        "the best guidance scale",
        lambda r: r.check and r.check.best_scale,
        _DATA,
    ),
    Field(
        "steps",
        pa.int64(),
        "steps of the optimizer",
        lambda r: r.steps,
        _ALL - {"torchmetrics"},
        form=lambda value: f"{value:,}",
    ),
    Field("prompt", pa.string(), "the prompt that was found or given", lambda r: r.prompt or None, _DATA, form=str),
    Field(
        "rows",
        pa.int64(),
        "network rows spent on the image: samples in network calls, those with gradients counted three times",
        lambda r: r.rows,
        _DATA,
    ),
    Field("seconds_steps", pa.float64(), "seconds spent on steps", lambda r: r.seconds_steps, _DATA),
    Field("seconds_checks", pa.float64(), "seconds spent on checks", lambda r: r.seconds_checks, _DATA),
    Field(
        "seconds",
        pa.float64(),
        "seconds spent on the image",
        lambda r: r.seconds_steps + r.seconds_checks,
        frozenset({"terminal", "html"}),
    ),
    Field("error", pa.string(), "why the search failed", lambda r: r.error, frozenset({"dataset", "metric"}), form=str),
)
"""Every field, in the order of columns."""


Describe = Callable[[str], Mapping[str, str]]
"""The descriptions of the values of an estimator, by its name (``Estimator.fields``)."""


def fields(face: Face, results: Sequence[Result] = (), describe: Describe | None = None) -> tuple[Field, ...]:
    """The fields that a face shows: those of :data:`FIELDS`, then one for each value of the results' estimators.

    Args:
        face: Where they are shown.
        results: What may hold values of estimators.
        describe: Finds descriptions of these values.
    """
    return tuple(field for field in (*FIELDS, *_estimated(results, describe)) if face in field.shown)


def present(face: Face, results: Sequence[Result], describe: Describe | None = None) -> tuple[Field, ...]:
    """The fields of a face of which at least one result has a value."""
    found = fields(face, results, describe)
    return tuple(field for field in found if any(field.value(result) is not None for result in results))


def columns(face: Face, results: Sequence[Result] = (), describe: Describe | None = None) -> tuple[Field, ...]:
    """The fields of a face, with one for each end of an interval."""
    return tuple(column for field in fields(face, results, describe) for column in field.columns())


def _estimated(results: Sequence[Result], describe: Describe | None) -> Iterator[Field]:
    """A field ``ESTIMATOR_VALUE`` for each value of each estimator but the built-in ones, which have fields above."""
    examples: dict[str, dict[str, Any]] = {}
    for result in results:
        for estimator in result.estimates.keys() - {DOSE_RESPONSE, CONFIRMATION}:
            values = result.estimates[estimator]
            known = examples.setdefault(estimator, {})
            known |= {name: value for name, value in values.items() if value is not None or name not in known}
    for estimator, values in sorted(examples.items()):
        descriptions = describe(estimator) if describe else {}
        for name, example in values.items():
            yield Field(
                f"{estimator}_{name}",
                _arrow_type(example),
                descriptions.get(name, f"{name} by the estimator {estimator}"),
                partial(_estimate, estimator, name),
                heading=f"{estimator} {name}",
                form=_any,
            )


def _estimate(estimator: str, name: str, result: Result) -> Any:
    value = result.estimates.get(estimator, {}).get(name)
    return json.dumps(value) if isinstance(value, Mapping | list) else value


def _any(value: Any) -> str:
    return number(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _arrow_type(value: Any) -> pa.DataType:
    if isinstance(value, bool):
        return pa.bool_()
    return pa.float64() if isinstance(value, int | float) else pa.string()
