"""Flags are derived from the options of an audit; KEY=VALUE texts are read."""

import pytest

from invmm_eval.cli.options import pairs, read_value
from invmm_eval.errors import InvMMError


def test_pairs() -> None:
    assert pairs(["side=64", "xi=1e-3", "weights=a=b.onnx", "my-key=-2", "empty="]) == {
        "side": 64,
        "xi": 0.001,
        "weights": "a=b.onnx",
        "my_key": -2,
        "empty": "",
    }
    with pytest.raises(InvMMError, match="'side' is not KEY=VALUE"):
        pairs(["side"])


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("3", 3),
        ("3.0", 3.0),
        ("three", "three"),
        ("0x10", "0x10"),
        ("true", True),
        ("False", False),
        ("falsely", "falsely"),
    ],
)
def test_values(text: str, read: object) -> None:
    assert read_value(text) == read
    assert type(read_value(text)) is type(read)
