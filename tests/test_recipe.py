import json
import math
from dataclasses import asdict, replace
from typing import Any

import pytest

from invmm_eval.errors import InvMMError
from invmm_eval.recipe import DDPM, DEMO, LDM, STABLE_DIFFUSION, STABLE_DIFFUSION_3, Recipe, by_dose, fast

PUBLISHED = ["learning_rate", "max_steps", "draws", "check_every", "xi", "delta"]
PUBLISHED += ["first_weight", "check_images", "sampler_steps", "window", "guidance"]


@pytest.mark.parametrize(
    ("recipe", "name", "figures"),
    [
        (DDPM, "paper-ddpm", [0.1, 2000, 32, 50, 1e-3, 1e-4, 1, 8, 200, 100, (1,)]),
        (LDM, "paper-ldm", [0.1, 2000, 16, 10, 1e-3, 5e-4, 1, 8, 50, 100, (1,)]),
        (STABLE_DIFFUSION, "paper-sd", [0.1, 2000, 16, 50, 1e-3, 1e-3, 1, 8, 50, 100, (1, 2, 3, 4, 5, 6, 7)]),
        (STABLE_DIFFUSION_3, "paper-sd3", [0.1, 2000, 16, 50, 1e-3, 1e-3, 1, 8, 50, 100, (1, 2, 3, 4, 5)]),
    ],
)
def test_published_settings(recipe: Recipe, name: str, figures: list[Any]) -> None:
    assert recipe.name == name
    assert [getattr(recipe, key) for key in PUBLISHED] == figures
    assert recipe.threshold is None  # the 0.5 of the paper belongs to SSCD
    assert recipe.first_dose == recipe.responses == recipe.confirm == 0
    assert recipe.sampler == "ddim"


def test_no_two_recipes_share_a_name() -> None:
    published = [DDPM, LDM, STABLE_DIFFUSION, STABLE_DIFFUSION_3]
    recipes = [*published, *map(by_dose, published), DEMO, Recipe()]
    assert len({recipe.name for recipe in recipes}) == len(recipes)


@pytest.mark.parametrize("published", [DDPM, STABLE_DIFFUSION_3])
def test_the_recipe_by_dose_keeps_what_belongs_to_the_model(published: Recipe) -> None:
    dose = by_dose(published)
    for key in ("guidance", "shared_context", "threshold", "check_images", "learning_rate"):
        assert getattr(dose, key) == getattr(published, key)
    assert dose.first_dose * 2 ** (dose.max_steps // dose.check_every - 1) == 1024
    assert dose.name == f"dose-{published.name.removeprefix('paper-')}"


# Changes


def test_a_change_is_part_of_the_name() -> None:
    changed = DDPM.changed(max_steps=100, draws=4)
    assert changed.name == "paper-ddpm with draws=4, max_steps=100"
    assert changed == replace(DDPM, name=changed.name, draws=4, max_steps=100)
    assert DDPM.draws == 32


def test_the_same_values_are_no_change() -> None:
    assert DDPM.changed() == DDPM.changed(draws=32, guidance=(1.0,), threshold=None) == DDPM
    assert DDPM.changed(draws=32, xi=0.5).name == "paper-ddpm with xi=0.5"


@pytest.mark.parametrize("key", ["steps", "name", "Draws", ""])
def test_an_unknown_setting_is_refused(key: str) -> None:
    with pytest.raises(
        InvMMError, match=rf"no setting '{key}'; it has check_every, check_images, clip, confirm, .*xi\.$"
    ) as caught:
        DDPM.changed(**{key: 3, "draws": 4})
    assert " name," not in str(caught.value)


def test_the_one_shot_search_takes_the_ends_of_the_guidance_and_the_contexts_of_a_family() -> None:
    for published in (DDPM, LDM, STABLE_DIFFUSION, STABLE_DIFFUSION_3):
        recipe = fast(published)
        assert recipe.name == published.name.replace("paper", "fast")
        ends = (0.0, published.guidance[0], published.guidance[-1]) if len(published.guidance) > 1 else (1.0,)
        assert (recipe.guidance, recipe.shared_context) == (ends, published.shared_context)

        assert recipe.first_dose * recipe.growth ** (recipe.max_steps - 1) == pytest.approx(31.25)


@pytest.mark.parametrize(("published", "tried"), [((4.0,), (0.0, 4.0)), ((0.0, 1.0, 3.0), (0.0, 3.0))])
def test_the_one_shot_search_tries_each_guidance_scale_once(
    published: tuple[float, ...], tried: tuple[float, ...]
) -> None:
    assert fast(Recipe(name="own", guidance=published)).guidance == tried


def test_the_published_recipes_never_clip_estimates_as_the_papers_scripts_do() -> None:
    for published in (DDPM, LDM, STABLE_DIFFUSION, STABLE_DIFFUSION_3):
        assert (published.clip, by_dose(published).clip, fast(published).clip) == ("none", "model", "model")


def test_parts_that_a_recipe_was_not_published_with_are_in_its_name() -> None:
    recipe = DDPM.beside(similarity="ssim", noise="mine")
    assert recipe.name == "paper-ddpm with noise=mine, similarity=ssim"
    assert recipe.changed(draws=8).name == "paper-ddpm with noise=mine, similarity=ssim, draws=8"
    assert DDPM.beside() is DDPM


# Ranges


COUNTS = ("max_steps", "draws", "check_every", "window", "check_images", "sampler_steps")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        *(({key: n}, rf"{key} is {n}; it must be at least 1\.") for key in COUNTS for n in (0, -5)),
        *(({"max_steps": n}, rf"max_steps \({n}\) must be a multiple of check_every \(50\)") for n in (49, 51, 120)),
        ({"optimizer": "one-shot"}, "optimizer one-shot needs a first_dose above 0"),
        ({"times": "late"}, "times is 'late'; it must be 'uniform' or 'informative'"),
        ({"reject": 1.5}, "reject is 1.5; it must be a cosine, between -1 and 1"),
        ({"growth": 1.0}, "growth is 1.0; it must be above 1"),
        ({"max_nats": 0.0}, "max_nats is 0.0; it must be above 0"),
        ({"plain": -1}, "plain is -1; it must not be negative"),
        ({"learning_rate": 0.0}, "it must be above 0"),
        ({"learning_rate": -0.1}, "it must be above 0"),
        ({"sampler": "euler"}, r"sampler is 'euler'; it must be 'ddim' or 'dpm-solver\+\+' or 'own'\."),
        ({"first_dose": -1.0}, "first_dose is -1.0; it must not be negative"),
        ({"confirm": -1}, "confirm is -1; it must not be negative"),
        ({"responses": -8}, "responses is -8; it must not be negative"),
        ({"optimizer": "dose", "first_dose": 1.0, "responses": 12}, r"responses \(12\) must be a multiple of"),
        ({"responses": 8}, "responses has no effect on optimizer adam; set optimizer=dose"),
        ({"first_dose": 2.0}, "first_dose has no effect on optimizer adam; set optimizer=dose"),
        ({"optimizer": "dose"}, "optimizer dose needs a first_dose above 0"),
        ({"rate": 1.0}, "rate is 1.0; it must be between 0 and 1"),
        ({"rate": 0.0}, "rate is 0.0; it must be between 0 and 1"),
        ({"first_dose": math.inf}, "first_dose is inf; it must be finite"),
        ({"guidance": ()}, "has no guidance scale"),
        ({"guidance": (1.0, -1e30)}, r"scales must be between 0 and 100"),
        ({"guidance": (1e30,)}, r"scales must be between 0 and 100"),
        ({"guidance": (1.0, 1.0)}, r"give each scale once"),
        ({"guidance": "1,2"}, r"guidance is '1,2'; it must be a list of numbers"),
        ({"draws": "8"}, r"The recipe's draws is '8'; it must be a whole number"),
        ({"first_weight": -1.0}, "first_weight is -1.0; it must not be negative"),
        ({"clip": "always"}, "clip is 'always'; it must be 'model' or 'none'"),
    ],
)
def test_values_out_of_range_are_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvMMError, match=sentence):
        DDPM.changed(**changes)


# Records


@pytest.mark.parametrize("recipe", [DDPM, by_dose(STABLE_DIFFUSION), DDPM.changed(estimators=("share",))])
def test_a_recipe_is_read_back_from_json(recipe: Recipe) -> None:
    assert Recipe.from_record(json.loads(json.dumps(asdict(recipe)))) == recipe


@pytest.mark.parametrize("recipe", [DDPM, by_dose(DDPM)])
def test_a_recipe_of_format_1_is_read(recipe: Recipe) -> None:
    new = ("optimizer", "criterion", "estimators")
    record = {key: value for key, value in asdict(recipe).items() if key not in new}
    assert Recipe.from_record({**record, "averaging": 0.9}) == recipe


def test_a_setting_of_a_newer_version_is_an_error() -> None:
    with pytest.raises(InvMMError, match=r"has no setting 'novelty' of a recipe; upgrade it\."):
        Recipe.from_record({**asdict(DDPM), "novelty": 1})


# Texts


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("max_steps=100", "max_steps", 100),
        ("learning_rate=0.05", "learning_rate", 0.05),
        ("xi=1e-3", "xi", 0.001),
        ("delta=0", "delta", 0.0),
        ("sampler=dpm-solver++", "sampler", "dpm-solver++"),
        ("guidance=3", "guidance", (3.0,)),
        ("guidance=1,2.5, 7", "guidance", (1.0, 2.5, 7.0)),
        ("threshold=0.75", "threshold", 0.75),
        ("estimators=share, other", "estimators", ("share", "other")),
        ("estimators=", "estimators", ()),
    ],
)
def test_texts_are_read_by_the_type_of_their_setting(text: str, key: str, value: Any) -> None:
    parsed = Recipe.parse([text])
    assert parsed == {key: value}
    assert type(parsed[key]) is type(value)
    assert getattr(DDPM.changed(**parsed), key) == value


def test_several_texts_are_read_together() -> None:
    assert Recipe.parse([]) == {}
    assert Recipe.parse(["draws=4", "guidance=1,2", "xi=0.5"]) == {"draws": 4, "guidance": (1.0, 2.0), "xi": 0.5}


@pytest.mark.parametrize("text", ["draws", "", "steps=3", "=3", "Draws=3", " draws=3"])
def test_a_text_that_names_no_setting_is_refused(text: str) -> None:
    with pytest.raises(InvMMError, match=r"is not KEY=VALUE with KEY one of check_every, .*xi\.$") as caught:
        Recipe.parse(["xi=0.5", text])
    assert str(caught.value).startswith(repr(text))


def test_only_what_can_be_changed_is_offered() -> None:
    with pytest.raises(InvMMError, match="KEY one of") as caught:
        Recipe.parse(["no such setting"])
    offered = str(caught.value).removesuffix(".").split("KEY one of ")[1].split(", ")
    for key in offered:
        DDPM.changed(**{key: getattr(DDPM, key)})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("draws", value) for value in ("x", "1.5", "", "1=2")),
        ("xi", "small"),
        ("threshold", "none"),
        *(("guidance", value) for value in ("", "1,,2", "1;2")),
    ],
)
def test_a_value_of_another_type_is_refused(key: str, value: str) -> None:
    with pytest.raises(InvMMError, match=rf"^'{value}' is not a valid value of the recipe's {key}\.$"):
        Recipe.parse([f"{key}={value}"])
