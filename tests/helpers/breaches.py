"""How a good fake is made to break one promise: a function that changes a part and gives it back."""

from collections.abc import Callable
from typing import Any

Breach = Callable[[Any], Any]


def sets(**attributes: Any) -> Breach:
    """Other attributes."""

    def change(part: Any) -> Any:
        vars(part).update(attributes)
        return part

    return change


def after(name: str, result: Callable[[Any], Any]) -> Breach:
    """Another result of a method, made of its own."""

    def change(part: Any) -> Any:
        method = getattr(part, name)
        return sets(**{name: lambda *given: result(method(*given))})(part)

    return change


def before(name: str, arguments: Callable[..., tuple[Any, ...]]) -> Breach:
    """Other arguments of a method, made of those it was given."""

    def change(part: Any) -> Any:
        method = getattr(part, name)
        return sets(**{name: lambda *given: method(*arguments(*given))})(part)

    return change


def within(name: str, breach: Breach) -> Breach:
    """A breach of a part of the part."""
    return lambda part: sets(**{name: breach(getattr(part, name))})(part)
