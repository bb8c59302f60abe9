"""What is in the records of results, and in the files that hold them."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from safetensors import safe_open
from torch import Tensor

from invmm_eval.search.trace import Point
from invmm_eval.search.upgrade import DOSE_RESPONSE
from invmm_eval.strict_json import parsed_object, unsealed

K = TypeVar("K")


def saved_record(path: str | Path) -> dict[str, Any]:
    """The :meth:`Result.record` in a file of :meth:`Result.save`, whose tensors are not read.

    Raises:
        OSError: The file cannot be read.
        SafetensorError, KeyError, TypeError, ValueError: It is damaged, or no saved result.
    """
    with safe_open(path, "pt") as file:
        return unsealed(parsed_object(file.metadata()["invmm"].encode()))


def part(tensors: Mapping[str, Tensor], prefix: str, key: Callable[[str], K]) -> dict[K, Tensor]:
    """The tensors whose names begin with a prefix, by what follows it."""
    return {key(name.removeprefix(prefix)): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def similarities_in(record: Mapping[str, Any]) -> dict[float, tuple[float, ...]]:
    """The similarities of a record, by guidance scale."""
    return {float(scale): _floats(values) for scale, values in record.get("similarities", {}).items()}


def trace_in(record: Mapping[str, Any]) -> tuple[Point, ...]:
    """The trace of a record."""
    return tuple(Point(int(step), *_floats(values)) for step, *values in record.get("trace", ()))


def prompt_in(record: Mapping[str, Any]) -> str:
    """The prompt of a record; empty without one."""
    return record.get("prompt") or ""


def outcomes_in(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """The outcomes of the dose-response curve of a record, if it has one."""
    curve = record.get("estimates", {}).get(DOSE_RESPONSE, {})
    return {"outcomes": curve["outcomes"]} if curve else {}


def best_in(row: Mapping[str, Any]) -> tuple[float, float]:
    """The best guidance scale of a row and its score."""
    return row["guidance"], -math.inf if row["similarity"] is None else row["similarity"]


def _floats(values: Sequence[float | None]) -> tuple[float, ...]:
    return tuple(math.nan if value is None else value for value in values)
