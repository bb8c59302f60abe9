"""Options: written once, offered flat by every face, sorted into three objects below."""

import inspect
from collections.abc import Callable
from typing import Any, Unpack, get_type_hints

import pytest

from invmm_eval.audits.calibration import Calibration
from invmm_eval.audits.held_out import calibrate
from invmm_eval.audits.options import (
    ALL_OPTIONS,
    KINDS,
    OPTIONS,
    RUN_OPTIONS,
    Choices,
    Extent,
    ModelOptions,
    Output,
    Resources,
    Screen,
    with_options,
)
from invmm_eval.audits.plan import load_backbone
from invmm_eval.audits.request import Request
from invmm_eval.audits.run import audit
from invmm_eval.audits.typed import AuditOptions, CalibrationOptions, LoadingOptions, ScreenOptions, SetOptions
from invmm_eval.audits.whole.audit import audit_set
from invmm_eval.audits.whole.screening import screen
from invmm_eval.errors import InvMMError
from invmm_eval.recipe import Recipe
from invmm_eval.similarity import Similarity


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


@pytest.mark.parametrize(
    ("seen", "function"),
    [
        (AuditOptions, audit),
        (CalibrationOptions, calibrate),
        (LoadingOptions, load_backbone),
        (ScreenOptions, screen),
        (SetOptions, audit_set),
    ],
)
def test_type_checkers_see_every_option_with_its_type(seen: type, function: Callable[..., Any]) -> None:
    """KEY=VALUE options may be None in Python, which stands for no values."""
    names = {"Calibration": Calibration, "Similarity": Similarity, "Recipe": Recipe}
    types = {
        name: hint
        for kind in (*KINDS, Output, Screen, Extent)
        for name, hint in get_type_hints(kind, None, names).items()
    }
    shown = inspect.signature(function).parameters.keys() & ALL_OPTIONS.keys()
    assert get_type_hints(seen, None, names) == {
        name: types[name] | None if ALL_OPTIONS[name].repeatable else types[name] for name in shown
    }
    assert function.__annotations__["options"] == Unpack[seen]


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
        ({"dtype": "float8"}, "no precision 'float8'; choose one of float32, float16, bfloat16"),
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
