"""Values that are read when they are first looked at, such as how a search went, which a row leaves out."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeVar

from torch import Tensor

from invmm_eval.search.trace import Point
from invmm_eval.search.upgrade import DOSE_RESPONSE

K = TypeVar("K")
V = TypeVar("V")


class Late(Mapping[K, V]):
    """A mapping that is read when it is first looked at."""

    def __init__(self, read: Callable[..., Mapping[K, V]], *arguments: Any) -> None:
        self._read = read
        self._arguments = arguments

    @cached_property
    def _values(self) -> Mapping[K, V]:
        return self._read(*self._arguments)

    def __getitem__(self, key: K) -> V:
        return self._values[key]

    def __iter__(self) -> Iterator[K]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


class LateSequence(Sequence[V]):
    """The same for a sequence; it equals a tuple of its values."""

    def __init__(self, read: Callable[..., tuple[V, ...]], *arguments: Any) -> None:
        self._read = read
        self._arguments = arguments

    @cached_property
    def _values(self) -> tuple[V, ...]:
        return self._read(*self._arguments)

    def __getitem__(self, at: Any) -> Any:
        return self._values[at]

    def __len__(self) -> int:
        return len(self._values)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self._values == tuple(other)

    def __hash__(self) -> int:
        return hash(self._values)


class LateText:
    """The same for a text: a field of a dataclass, which may be set to a function that reads it."""

    def __set_name__(self, _: type, name: str) -> None:
        self._name = name

    def __get__(self, owner: object, _: type | None = None) -> str | None:
        if owner is None:  # the default of the field
            return None
        text: str | Callable[[], str] | None = owner.__dict__[self._name]
        if callable(text):
            text = owner.__dict__[self._name] = text()
        return text

    def __set__(self, owner: object, text: str | Callable[[], str] | None) -> None:
        owner.__dict__[self._name] = text


class Part(Mapping[K, Tensor]):
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
