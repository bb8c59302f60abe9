"""The fields of a result: one table that every output reads, from the terminal to the data set.

A new field is one entry of :data:`FIELDS` and one place where its value is computed, usually a property of
:class:`~invmm_eval.search.result.Result`. What third-party estimators compute (``Result.estimates``) joins the table by
itself: :func:`fields` adds a field for each of their values, with the name and the description they bring.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import pyarrow as pa

from invmm_eval.search.result import CONFIRMATION, DOSE_RESPONSE, PLAIN_SHARE, Result
from invmm_eval.search.sentence import plain_prompt, sentence, share_ends, share_text
from invmm_eval.search.status import Verdict
from invmm_eval.statistics.response import Dose
from invmm_eval.strict_json import finite as finite

Face = Literal["table", "details", "dataset", "metric", "torchmetrics"]
"""Where fields are shown: columns of the terminal, the report and the card; the details of one image in the report and
the web page; files (CSV, Parquet, data set, mlflow); and what metrics return."""

Interval = Callable[[Result], tuple[float, float] | None]

_ALL: frozenset[Face] = frozenset(get_args(Face))
_DATA: frozenset[Face] = frozenset({"dataset"})
_READ: frozenset[Face] = frozenset({"details"})
_NONE = "-"


def number(value: float) -> str:
    """A number as people read it: three significant digits, thousands separated."""
    if not math.isfinite(value):
        return "∞" if value > 0 else _NONE
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def percent(value: float) -> str:
    """A rate of copies: two significant digits."""
    return f"{100 * value:.0f} %" if value >= 0.1 else f"{100 * value:.2g} %"


def _limit(result: Result) -> tuple[float, float] | None:
    share = result.plain_share
    return share and (0.0 - math.log(share.high), 0.0 - math.log(share.low) if share.low else math.inf)


def _nats_ends(low: float, high: float) -> str:
    if not low:
        return f"at most {number(high)}" if math.isfinite(high) else ""
    return f"{number(low)} to {number(high)}" if math.isfinite(high) else f"at least {number(low)}"


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
        form_ends: Writes the two ends for people; None writes ``LOW to HIGH``.
    """

    name: str
    type: pa.DataType
    description: str
    value: Callable[[Result], Any]
    shown: frozenset[Face] = _ALL
    heading: str = ""
    form: Callable[[Any], str] = number
    interval: Interval | None = None
    form_ends: Callable[[float, float], str] | None = None

    @property
    def title(self) -> str:
        """What people read above its column."""
        return self.heading or self.name.replace("_", " ")

    @property
    def summary(self) -> str:
        """The description without the cases in which there is no value."""
        return self.description.partition(";")[0]

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
        if ends is None:
            return ""
        return self.form_ends(*ends) if self.form_ends else f"{self.form(ends[0])} to {self.form(ends[1])}"

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
    return None if ends is None else finite(ends[which])


def _estimate(estimator: str, name: str, result: Result) -> Any:
    value = result.estimates.get(estimator, {}).get(name)
    return json.dumps(value) if isinstance(value, Mapping | list) else value


def _dose(name: str, share: str, dose: Callable[[Result], Dose | None]) -> Field:
    """The dose at which a share of the samples are copies."""
    return Field(
        name,
        pa.float64(),
        f"nats in total at which {share} of the samples are copies; null without a rising curve that reaches it",
        lambda r: (found := dose(r)) and found.nats,
        heading=name.upper(),
        interval=lambda r: (found := dose(r)) and (found.low, found.high),
    )


FIELDS: tuple[Field, ...] = (
    Field("name", pa.string(), "what the image is called", lambda r: r.name, _ALL - {"torchmetrics"}, "image", str),
    Field("index", pa.int64(), "position among the images of the audit, from 0", lambda r: r.index, _DATA),
    Field("digest", pa.string(), "SHA-256 of the pixels at the model's size", lambda r: r.digest, _DATA),
    Field(
        "verdict",
        pa.string(),
        ". ".join(f"{verdict}: {verdict.meaning}" for verdict in Verdict),
        lambda r: str(r.verdict),
        _ALL - {"torchmetrics"},
        form=str,
    ),
    Field(
        "finding",
        pa.string(),
        "how many plain samples are copies of the image, in words",
        sentence,
        _ALL - {"table", "torchmetrics"},
        form=str,
    ),
    Field(
        "plain_share",
        pa.float64(),
        "share of plain samples, which start from random noise as for every user, that are copies; estimated; "
        "null if it was not estimated",
        lambda r: r.plain_share and r.plain_share.rate,
        heading="plain samples",
        form=share_text,
        interval=lambda r: r.plain_share and (r.plain_share.low, r.plain_share.high),
        form_ends=share_ends,
    ),
    Field(
        "plain_prompt",
        pa.string(),
        "prompt of these plain samples, with the guidance scale (a searched one is a mixture of tokens, which nobody "
        "types); null for a model without prompts",
        lambda r: plain_prompt(r) if r.plain_share else None,
        _ALL - {"torchmetrics"},
        "prompt",
        lambda prompt: prompt or "none",
    ),
    Field(
        "limit_nats",
        pa.float64(),
        "limit of InvMM over all noise families, in nats in total: -ln(plain_share), the least KL of noise that always "
        "gives a copy; null without a share",
        lambda r: r.plain_share and finite(r.plain_share.nats),
        _ALL - {"table"},
        "limit, nats",
        interval=_limit,
        form_ends=_nats_ends,
    ),
    *(
        Field(name, type_, description, partial(_estimate, PLAIN_SHARE, name), _DATA)
        for name, type_, description in (
            ("relative_error", pa.float64(), "standard error of plain_share over plain_share"),
            ("plain_copies", pa.int64(), "copies among the plain samples that plain_share counts"),
            ("plain_samples", pa.int64(), "plain samples that plain_share counts"),
            ("plain_guidance", pa.float64(), "guidance scale that plain_share is for; 0 without a prompt"),
        )
    ),
    Field(
        "status",
        pa.string(),
        "how the search ended: replicated (a check was passed), exhausted (none was within the budget) or failed",
        lambda r: str(r.status),
        _DATA | {"metric"},
    ),
    Field(
        "invmm",
        pa.float64(),
        "KL(q ‖ N(0, I)) in nats per dimension of the noise q that was found; infinite, or null in files, if no check "
        "was passed",
        lambda r: r.invmm,
        heading="InvMM",
    ),
    Field(
        "nats",
        pa.float64(),
        "InvMM times the number of dimensions: nats in total; null if no check was passed",
        lambda r: r.nats,
        _READ | _DATA | {"metric"},
        "total nats",
    ),
    Field(
        "bits",
        pa.float64(),
        "information that the chosen noise supplied, in bits: nats / ln 2; to compare with picture_bits; null if no "
        "check was passed",
        lambda r: None if r.nats is None else r.nats / math.log(2),
        _READ | _DATA | {"metric"},
        "bits from the noise",
    ),
    Field(
        "picture_bits",
        pa.int64(),
        "bits of the image itself as PNG; what the noise did not supply, the model did",
        lambda r: r.picture_bits,
        _READ | _DATA,
        "bits of the image",
    ),
    _dose("ed50", "half", lambda r: r.ed50),
    Field(
        "rate",
        pa.float64(),
        "share of copies among fresh samples from q; null unless the recipe draws some (confirm)",
        lambda r: r.confirmed and r.confirmed.rate,
        form=percent,
        interval=lambda r: r.confirmed and r.confirmed.interval,
    ),
    _dose("ed90", "90 %", lambda r: r.ed90),
    Field(
        "kl",
        pa.float64(),
        "KL(q ‖ N(0, I)) where the search ended, in nats per dimension; null if it failed",
        lambda r: r.kl,
        _DATA | {"metric"},
    ),
    Field("dimensions", pa.int64(), "dimensions of the noise; null if it failed", lambda r: r.dimensions, _DATA),
    Field(
        "similarity",
        pa.float64(),
        "least similarity of the samples of the last check to the image; at the best guidance scale",
        lambda r: r.similarity,
        form=lambda value: f"{value:.2f}",
    ),
    Field("guidance", pa.float64(), "the best guidance scale", lambda r: r.check and r.check.best_scale, _DATA),
    Field("steps", pa.int64(), "steps of the optimizer", lambda r: r.steps, _READ | _DATA | {"metric"}, "steps taken"),
    Field("prompt", pa.string(), "the prompt that was found or given", lambda r: r.prompt or None, _DATA, form=str),
    Field(
        "rows",
        pa.int64(),
        "network rows spent on the image: samples in network calls, those with gradients counted three times",
        lambda r: r.rows,
        _READ | _DATA,
        "network rows",
    ),
    Field("seconds_steps", pa.float64(), "seconds spent on steps", lambda r: r.seconds_steps, _DATA),
    Field("seconds_checks", pa.float64(), "seconds spent on checks", lambda r: r.seconds_checks, _DATA),
    Field("seconds", pa.float64(), "seconds spent on the image", lambda r: r.seconds_steps + r.seconds_checks, _READ),
    Field("error", pa.string(), "why the search failed", lambda r: r.error, _DATA | {"metric"}, form=str),
)
"""Every field, in the order of columns."""


Describe = Callable[[str], Mapping[str, str]]
"""The descriptions of the values of an estimator, by its name (``Estimator.fields``)."""


def fields(face: Face, results: Iterable[Result] = (), describe: Describe | None = None) -> tuple[Field, ...]:
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


def columns(face: Face, results: Iterable[Result] = (), describe: Describe | None = None) -> tuple[Field, ...]:
    """The fields of a face, with one for each end of an interval."""
    return tuple(column for field in fields(face, results, describe) for column in field.columns())


def _estimated(results: Iterable[Result], describe: Describe | None) -> Iterator[Field]:
    """A field ``ESTIMATOR_VALUE`` for each value of each estimator but the built-in ones, which have fields above."""
    examples: dict[str, dict[str, Any]] = {}
    for result in results:
        for estimator in result.estimates.keys() - {DOSE_RESPONSE, CONFIRMATION, PLAIN_SHARE}:
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


def _any(value: Any) -> str:
    return number(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _arrow_type(value: Any) -> pa.DataType:
    if isinstance(value, bool):
        return pa.bool_()
    return pa.float64() if isinstance(value, int | float) else pa.string()
