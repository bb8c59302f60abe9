"""Values that are read when they are first looked at, such as how a search went, which a row leaves out."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from functools import cached_property
from typing import Any, Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Late(Mapping[K, V]):
    """A mapping that is read when it is first looked at.

    Args:
        read: Reads it.
        arguments: What ``read`` is called with. A future is waited for, also before a copy for another process is made.
    """

    def __init__(self, read: Callable[..., Mapping[K, V]], *arguments: Any) -> None:
        self._read = read
        self._arguments = arguments

    @cached_property
    def _values(self) -> Mapping[K, V]:
        return self._read(*self._done())

    def __reduce__(self) -> tuple[Any, ...]:
        return Late, (self._read, *self._done())

    def _done(self) -> list[Any]:
        return [one.result() if isinstance(one, Future) else one for one in self._arguments]

    def __getitem__(self, key: K) -> V:
        return self._values[key]

    def __iter__(self) -> Iterator[K]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return repr(dict(self._values))


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
