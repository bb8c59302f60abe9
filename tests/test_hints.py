"""Values of dataclasses are of the types that their hints say."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest

from invmm_eval.errors import InvMMError
from invmm_eval.hints import check_types, signature_of

if TYPE_CHECKING:
    Other = list[str]


@dataclass(frozen=True)
class Some:
    count: int = 1
    share: float | None = None
    scales: tuple[float, ...] = ()
    names: tuple[str, ...] = ()
    stop: bool = True
    how: "int | Literal['all'] | None" = None
    where: str | Path = ""
    more: Mapping[str, Any] = field(default_factory=dict)
    other: "str | Other" = ""
    anything: Any = None

    def __post_init__(self) -> None:
        check_types(self, "The thing's ", {"Other": list})


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"count": "3"}, r"The thing's count is '3'; it must be a whole number\."),
        ({"count": 3.0}, "must be a whole number"),
        ({"count": True}, "must be a whole number"),
        ({"count": [3]}, "must be a whole number"),
        ({"count": None}, "must be a whole number"),
        ({"share": "0.5"}, "share is '0.5'; it must be a number or None"),
        ({"share": math.nan}, "share is nan; it must be finite"),
        ({"share": -math.inf}, "share is -inf; it must be finite"),
        ({"scales": 1.0}, "must be a list of numbers"),
        ({"scales": (1.0, "2")}, "must be a list of numbers"),
        ({"scales": (1.0, math.inf)}, "must be finite"),
        ({"names": "one"}, "names is 'one'; it must be a list of texts"),
        ({"stop": 1}, "must be True or False"),
        ({"how": "some"}, "must be a whole number or 'all' or None"),
        ({"where": 3}, "must be a text or a path"),
        ({"more": [("a", 1)]}, "must be a mapping"),
        ({"more": {1: 2}}, "must be a mapping of names"),
        ({"other": 3}, "must be a text or a list"),
    ],
)
def test_a_value_of_another_type_is_refused(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvMMError, match=sentence):
        Some(**given)


def test_what_fits_is_taken_and_numbers_are_pythons() -> None:
    some = Some(np.int64(3), np.float32(0.5), [1, 2.5], ["a"], False, "all", Path("x"), {"a": 1}, ["b"], object())  # type: ignore[arg-type]
    assert (some.count, some.share, some.scales, some.names) == (3, 0.5, (1.0, 2.5), ("a",))
    assert [type(value) for value in (some.count, some.share, *some.scales)] == [int, float, float, float]
    assert (some.stop, some.how, some.where, some.more, some.other) == (False, "all", Path("x"), {"a": 1}, ["b"])


def test_hints_that_are_texts_are_read_where_their_names_are_known() -> None:
    def known(side: "int") -> None: ...

    def unknown(side: "int", other: "Other") -> None: ...

    assert signature_of(known).parameters["side"].annotation is int
    assert signature_of(unknown).parameters["side"].annotation == "int"
