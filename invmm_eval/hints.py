"""The values of a dataclass, checked by its type hints."""

import math
from collections.abc import Callable, Mapping
from inspect import Signature, signature
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from invmm_eval.errors import InvMMError

_WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "a text",
    tuple: "a list",
    Mapping: "a mapping of names",
    Path: "a path",
    NoneType: "None",
}


def check_types(owner: Any, what: str = "", names: Mapping[str, Any] | None = None) -> None:
    """Check every field of a frozen dataclass by its type hint; whole numbers become floats, and lists tuples.

    Args:
        owner: The dataclass. Numbers of numpy are taken as Python's.
        what: What its fields belong to, before their names in the error.
        names: The types that its hints name as texts.

    Raises:
        InvMMError: A value is of another type, or a number is not finite.
    """
    for name, hint in get_type_hints(type(owner), localns=dict(names or {})).items():
        object.__setattr__(owner, name, typed(getattr(owner, name), hint, f"{what}{name}"))


def typed(value: Any, hint: Any, name: str) -> Any:
    """A value as the type that a hint says.

    Raises:
        InvMMError: It is of another type, or a number that is not finite; the sentence begins with ``name``.
    """
    kinds = _kinds(hint)
    for kind in kinds:
        try:
            return _as(kind, value)
        except TypeError:
            continue
        except ValueError:
            raise InvMMError(f"{name} is {value}; it must be finite.") from None
    words = " or ".join(dict.fromkeys(map(_in_words, kinds)))
    raise InvMMError(f"{name} is {value!r}; it must be {words}.")


def signature_of(function: Callable[..., Any]) -> Signature:
    """The signature of a function, whose hints are read where they are texts of names that are known."""
    try:
        return signature(function, eval_str=True)
    except NameError:
        return signature(function)


def is_plain(hint: Any) -> bool:
    """Whether a hint is of numbers, texts, truth values, paths, given values and None alone."""
    plain = (int, float, bool, str, Path, NoneType)
    return all(kind in plain or get_origin(kind) is Literal for kind in _kinds(hint))


def _kinds(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _as(kind: Any, value: Any) -> Any:
    """The value as this type; TypeError if it is of another, ValueError if it is not finite."""
    origin = get_origin(kind)
    if kind is Any or (origin is Literal and value in get_args(kind)):
        return value
    if kind in (int, float) and isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise ValueError
        return kind(value)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_as(get_args(kind)[0], part) for part in value)
    if origin is Mapping and isinstance(value, Mapping) and not all(isinstance(key, str) for key in value):
        raise TypeError
    if kind not in (int, float) and origin in (None, Mapping) and isinstance(value, origin or kind):
        return value
    raise TypeError


def _in_words(kind: Any) -> str:
    origin = get_origin(kind)
    if origin is Literal:
        return " or ".join(map(repr, get_args(kind)))
    if origin is tuple:
        return {float: "a list of numbers", str: "a list of texts"}.get(get_args(kind)[0], "a list")
    return _WORDS.get(origin or kind) or f"a {kind.__name__.lstrip('_')}"
