"""Values that are read when they are first looked at, such as how a search went, which a row leaves out."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Generic, TypeVar

from torch import Tensor

from invmm_eval.search.trace import Point
from invmm_eval.search.upgrade import DOSE_RESPONSE

K = TypeVar("K")
V = TypeVar("V")


class Late(Mapping[K, V]):
    """A mapping that is read when it is first looked at; a copy for another process holds what was read."""

    def __init__(self, read: Callable[..., Mapping[K, V]], *arguments: Any) -> None:
        self._read = read
        self._arguments = arguments

    @cached_property
    def _values(self) -> Mapping[K, V]:
        return self._read(*self._arguments)

    def __reduce__(self) -> tuple[type[dict[K, V]], tuple[dict[K, V]]]:
        return dict, (dict(self._values),)

    def __getitem__(self, key: K) -> V:
        return self._values[key]

    def __iter__(self) -> Iterator[K]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


class LateField(Generic[V]):
    """A field of a dataclass, which may be set to a function that reads its value when it is first looked at."""

    def __init__(self, default: V) -> None:
        self._default = default

    def __set_name__(self, _: type, name: str) -> None:
        self._name = name

    def __get__(self, owner: object, _: type | None = None) -> V:
        if owner is None:
            return self._default
        value: V = owner.__dict__[self._name]
        if callable(value):
            value = owner.__dict__[self._name] = value()
        return value

    def __set__(self, owner: object, value: V | Callable[[], V]) -> None:
        owner.__dict__[self._name] = value


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


def _floats(values: Sequence[float | None]) -> tuple[float, ...]:
    return tuple(math.nan if value is None else value for value in values)
