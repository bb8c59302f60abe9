"""The request: kept in the folder, printed as the command that reproduces the audit, published without local paths."""

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMPipeline
from PIL import Image

from invmm_eval.audits.folder import read
from invmm_eval.audits.folder.files import read_object, write_object
from invmm_eval.audits.options import RUN_OPTIONS
from invmm_eval.audits.request import Request, command, published, rebuilt
from invmm_eval.audits.run import audit
from invmm_eval.recipe import DDPM, DEMO, STABLE_DIFFUSION, Recipe, by_dose
from invmm_eval.similarity.pixel_cosine import PixelCosine
from tests.helpers import audits
from tests.helpers.command import TINY


def words(record: Any) -> dict[str, list[str]]:
    """The values of each flag of the command of a record."""
    found = shlex.split(command(record).replace("\\\n", ""))
    assert found[:2] == ["invmm-eval", "run"]
    flags: dict[str, list[str]] = {}
    for flag, value in zip(found[2::2], found[3::2], strict=True):
        flags.setdefault(flag, []).append(value)
    return flags


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "private pictures"
    folder.mkdir()
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(folder / "a.png")
    return folder


def test_the_request_is_kept_as_it_was_made_last(tiny_folder: Path, images: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"similarity": "pixel-cosine", "settings": TINY}
    audit(tiny_folder, images, out=tmp_path / "out", **options)
    audit(tiny_folder, [images], out=tmp_path / "out", batch_size=2, **options)
    kept = read(tmp_path / "out").request
    assert kept == read_object(tmp_path / "out" / "request.json")
    assert kept == {
        **{name: option.default for name, option in RUN_OPTIONS.items()},
        "model": str(tiny_folder),
        "images": [str(images)],
        "captions": None,
        "batch_size": 2,
        **options,
    }


def test_the_command_has_what_differs_from_the_defaults() -> None:
    request = Request.of(
        "org/name",
        ["a b", "c"],
        ".txt",
        revision="v1",
        similarity="ssim",
        similarity_options={"side": 64, "fast": True},
        recipe="dose",
        settings={"guidance": (1.0, 3.0), "stop": False},
        calibration=Path("held out/calibration.json"),
        seed=3,
        micro_batch=4,
    )
    assert words(request.record()) == {
        "--model": ["org/name"],
        "--images": ["a b", "c"],
        "--out": ["FOLDER"],
        "--captions": [".txt"],
        "--revision": ["v1"],
        "--similarity": ["ssim"],
        "--similarity-option": ["side=64", "fast=true"],
        "--recipe": ["dose"],
        "--set": ["guidance=1.0,3.0", "stop=false"],
        "--calibration": ["held out/calibration.json"],
        "--seed": ["3"],
        "--micro-batch": ["4"],
    }


def test_objects_are_kept_by_name(tiny_pipeline: DDIMPipeline) -> None:
    recipe = DEMO.changed(draws=4)
    similarity = PixelCosine(device=torch.device("cpu"))
    record = Request.of(tiny_pipeline, np.zeros((1, 8, 8, 3)), recipe=recipe, similarity=similarity).record()
    assert json.loads(json.dumps(record)) == record
    flags = words(record)
    assert (flags["--model"], flags["--images"], flags["--similarity"]) == (
        ["DDIMPipeline"],
        ["IMAGES"],
        ["pixel-cosine"],
    )
    assert (flags["--recipe"], flags["--set"]) == (["demo"], ["draws=4"])


def test_a_request_that_was_not_kept_is_rebuilt_from_the_config() -> None:
    flags = words(rebuilt(audits.CONFIG, captions=False))
    assert (flags["--model"], flags["--revision"]) == (["org/painter"], ["v1.0"])
    assert flags["--backbone-option"] == ["prompt_mode=soft"]
    assert flags["--dtype"] == ["float16"]
    assert flags["--noise-option"] == ["rank=2"]
    assert Recipe.parse(flags["--set"]) == {"guidance": audits.SCALES, "max_steps": 200}
    assert words(rebuilt(audits.CONFIG, captions=True))["--captions"] == ["CAPTIONS"]


@pytest.mark.parametrize(
    ("recipe", "base"),
    [
        (DEMO, DEMO),
        (DEMO.changed(shared_context=False, threshold=0.7), DEMO),
        (by_dose(DDPM), by_dose(DDPM)),
        (by_dose(STABLE_DIFFUSION).changed(draws=8, confirm=64), by_dose(STABLE_DIFFUSION)),
        (Recipe(name="my own", draws=3, threshold=0.5), Recipe()),
    ],
)
def test_a_recipe_is_a_name_and_changes(recipe: Recipe, base: Recipe) -> None:
    flags = words(Request.of("m", "i", recipe=recipe).record())
    assert base.changed(**Recipe.parse(flags.get("--set", []))) == Recipe(
        **{**vars(recipe), "name": base.changed(**Recipe.parse(flags.get("--set", []))).name}
    )
    assert flags.get("--recipe", ["paper"]) == ["demo" if base is DEMO else "dose" if base.first_dose else "paper"]


def test_a_local_model_is_published_by_the_name_of_its_folder() -> None:
    """The folder in which the command ran has none; an empty one would be no model."""
    for model, name in (("/home/me/model", "model"), ("../model/", "model"), ("model", "model"), (".", ".")):
        assert words(published(Request.of(model, "i").record(), local_model=True))["--model"] == [name]


def test_no_local_path_is_published(tiny_folder: Path, images: Path, tmp_path: Path) -> None:
    weights = {"weights": str(tmp_path / "secret" / "sscd.onnx")}
    audit(tiny_folder, images, out=tmp_path / "out", similarity="pixel-cosine", settings=TINY)
    record = read(tmp_path / "out")
    path = tmp_path / "out" / "request.json"
    write_object(path, {**record.request, "similarity_options": weights, "calibration": str(tmp_path)})
    public = read(tmp_path / "out").public()
    text = json.dumps([dict(public.config), dict(public.request)]) + command(public.request)
    assert str(tmp_path) not in text
    assert str(tiny_folder.parent) not in text
    assert "private" not in text
    flags = words(public.request)
    assert (flags["--model"], flags["--images"]) == ([tiny_folder.name], ["IMAGES"])
    assert (flags["--similarity-option"], flags["--calibration"]) == (["weights=sscd.onnx"], ["CALIBRATION"])
