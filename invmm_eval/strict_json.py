"""JSON that others may have written: read strictly, so that what is odd is an error where it is read."""

import json
import math
from pathlib import Path
from typing import Any

LARGEST = 1 << 30
"""Bytes of the largest file that is read: a list of some ten million names."""
DEEPEST = 64
"""Levels of lists and objects; ours have six."""


def parsed(content: bytes) -> Any:
    """The value that UTF-8 JSON holds.

    Raises:
        ValueError: It is no JSON, or holds what JSON does not: NaN, infinity, a key twice in an object; or it is nested
            deeper than :data:`DEEPEST` levels.
    """
    try:
        value = _DECODER.decode(content.decode("utf-8-sig"))
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(DEEPEST):
        parts = (part.values() if type(part) is dict else part for part in level)
        level = [value for part in parts for value in part if type(value) in (dict, list)]
        if not level:
            return value
    raise ValueError("it is nested too deep")


def parsed_object(content: bytes) -> dict[str, Any]:
    """The object that UTF-8 JSON holds.

    Raises:
        ValueError: As :func:`parsed`, or it holds another value.
    """
    value = parsed(content)
    if not isinstance(value, dict):
        raise ValueError("it is no object")
    return value


def read_object(path: Path) -> dict[str, Any]:
    """The object in a file.

    Raises:
        ValueError: As :func:`parsed_object`, or it is no regular file, which might never end, or larger than
            :data:`LARGEST`.
        OSError: It cannot be read.
    """
    status = path.stat()
    if not path.is_file() or status.st_size > LARGEST:
        raise ValueError("it is no file of JSON")
    return parsed_object(path.read_bytes())


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"{number} is no number of JSON")
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_without_twins, parse_constant=_finite, parse_float=_finite)
