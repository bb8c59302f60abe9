"""Options: written once, offered flat by every face, sorted into three objects below."""

from typing import Any

import pytest

from invmm_eval.audits.options import (
    OPTIONS,
    RUN_OPTIONS,
    Choices,
    ModelOptions,
    Resources,
)
from invmm_eval.audits.request import Request
from invmm_eval.errors import InvMMError


def test_options_are_sorted_into_three_objects_with_defaults() -> None:
    request = Request.of("m", (), seed=3, dtype="float16", workers=2, settings=None)
    assert request == Request(
        model=ModelOptions(source="m", dtype="float16"), choices=Choices(seed=3), resources=Resources(workers=2)
    )
    defaults = {**vars(ModelOptions(source="m")), **vars(Choices()), **vars(Resources())}
    assert {name: option.default for name, option in OPTIONS.items()} == {
        name: value for name, value in defaults.items() if name != "source"
    }


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"sed": 3}, r"no option 'sed' \(did you mean 'seed'\?\); the options are backbone, .*, micro_batch, shard"),
        ({"draws": 3}, r"no option 'draws'; to change this setting of the recipe write settings=\{'draws': \.\.\.\}"),
        ({"dtype": "float8"}, "dtype is 'float8'; it must be 'float32' or 'float16' or 'bfloat16'"),
        ({"batch_size": 0}, "batch_size is 0; it must be at least 1"),
        ({"workers": 0}, "workers is 0; it must be at least 1"),
        ({"workers": "all"}, "workers is 'all'; it must be a whole number or 'ranks' or None"),
        ({"similarity": 3}, "similarity is 3; it must be a text or a Similarity or None"),
        ({"recipe": 3}, "recipe is 3; it must be a text or a Recipe"),
        ({"shard": "4/3"}, "The shard is '4/3'; give K/N with K from 1 to N"),
        ({"settings": ["draws=3"]}, "must be a mapping"),
        ({"calibration": 0.5}, "calibration is 0.5; it must be a Calibration or a text or a path or None"),
    ],
)
def test_a_bad_option_is_one_sentence(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvMMError, match=sentence):
        Request.of("m", (), names=RUN_OPTIONS, **options)
