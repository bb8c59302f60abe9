"""Strict JSON: equal to what json reads, and one error for all that is odd."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from invmm_eval import strict_json

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(SCALARS, lambda parts: st.lists(parts) | st.dictionaries(st.text(), parts), max_leaves=20)


@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(VALUES, st.booleans(), st.sampled_from(["utf-8", "utf-8-sig"]))
def test_a_value_is_read_as_it_was_written(value: Any, escaped: bool, encoding: str) -> None:
    text = json.dumps(value, ensure_ascii=escaped)
    assert strict_json.parsed(text.encode(encoding)) == value


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(VALUES.map(lambda value: json.dumps(value).encode()), st.data())
def test_whatever_is_no_json_is_one_kind_of_error(content: bytes, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(content)))
    damaged = content[:place] + data.draw(st.binary(max_size=3)) + content[place + data.draw(st.integers(0, 3)) :]
    try:
        value = strict_json.parsed(damaged)
    except ValueError:
        return
    assert value == json.loads(damaged.decode("utf-8-sig"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"NaN", "NaN is no number"),
        (b"[1e999]", "1e999 is no number"),
        (b'{"a": [1, -Infinity]}', "-Infinity is no number"),
        (b'{"b": {"a": 1, "a": 2}}', "a key is there twice"),
        (b"[" * 65 + b"]" * 65, "nested too deep"),
        (b'{"a":' * 10**6, "nested too deep"),
        (b"[" * 10**6, "nested too deep"),
        ("é".encode("latin-1"), "can't decode"),
        ('{"a": 1}'.encode("utf-16"), "can't decode"),
        (b"1 2", "Extra data"),
        (b"", "Expecting value"),
        (b"9" * 5000, "integer string conversion"),
    ],
)
def test_what_is_odd_is_told(content: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        strict_json.parsed(content)


@pytest.mark.parametrize("content", [b"[]", b'""', b"null", b"[[1, 2]]"])
def test_an_object_is_an_object(content: bytes) -> None:
    with pytest.raises(ValueError, match="no object"):
        strict_json.parsed_object(content)


def test_64_levels_are_read() -> None:
    assert strict_json.parsed(b"[" * 64 + b"]" * 64)


def test_a_pipe_or_a_file_without_an_end_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(strict_json.LARGEST + 1)
    for name in ("pipe.json", "large.json"):
        with pytest.raises(ValueError, match="no file of JSON"):
            strict_json.read_object(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        strict_json.read_object(tmp_path / "none.json")
