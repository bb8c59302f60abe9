"""Options: written once, offered flat by every face, sorted into three objects below."""

import inspect
from typing import Any

import pytest

from invmm_eval.audits.options import (
    OPTIONS,
    RUN_OPTIONS,
    Choices,
    ModelOptions,
    Resources,
    with_options,
)
from invmm_eval.audits.request import Request
from invmm_eval.errors import InvMMError


@with_options(OPTIONS.keys() - {"calibration"})
def face(model: object, *, out: str | None = None, **options: Any) -> None:
    """Do something.

    Args:
        model: The model.
        **options: {options}
        out: A folder.
    """


def test_a_face_shows_every_option_with_type_default_and_text() -> None:
    parameters = inspect.signature(face).parameters
    assert list(parameters) == ["model", "out", *(name for name in OPTIONS if name != "calibration")]
    for name, option in OPTIONS.items():
        if name != "calibration":
            assert (parameters[name].default, parameters[name].annotation) == (option.default, option.annotation)
            assert f"\n        {name} (" in str(face.__doc__)
            assert option.help in " ".join(str(face.__doc__).split())
    assert "{options}" not in str(face.__doc__)
    assert "seed (int): " in str(face.__doc__)
    assert "for that image. Defaults to 0." in " ".join(str(face.__doc__).split())


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
        ({"batch_size": "8"}, "batch_size is '8'; it must be a whole number"),
        ({"seed": 1.5}, "seed is 1.5; it must be a whole number"),
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
