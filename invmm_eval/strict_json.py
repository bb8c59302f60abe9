"""JSON that others may have written: read strictly, so that what is odd is an error where it is read.

A checksum tells a record that was changed since it was written.
"""

import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any
from zlib import crc32

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


def sealed(record: Mapping[str, Any], apart: Collection[str] = ()) -> dict[str, Any]:
    """A record with a checksum of all values but those ``apart``."""
    return {**record, "crc32": _checksum(record, apart)}


def unsealed(stored: Mapping[str, Any], apart: Collection[str] = ()) -> dict[str, Any]:
    """The record that was sealed; one that was not is returned as it is.

    Raises:
        ValueError: Its values are not those that were sealed.
    """
    record = dict(stored)
    if (expected := record.pop("crc32", None)) is not None and expected != _checksum(record, apart):
        raise ValueError("its checksum differs")
    return record


def finite(value: Any) -> Any:
    """The value, or None if it is infinite or not a number, which JSON and tables cannot hold."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _checksum(record: Mapping[str, Any], apart: Collection[str]) -> int:
    found = {key: value for key, value in record.items() if key not in apart}
    return crc32(json.dumps(found, sort_keys=True).encode())


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
