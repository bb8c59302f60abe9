"""The packages of ``plugins/``, installed for real: a new kind of model comes by installing alone."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import ScoreSdeVePipeline, ScoreSdeVeScheduler, UNet2DModel
from PIL import Image

from invmm_eval.testing import tiny
from tests.helpers.command import python

PACKAGES = sorted(file.parent for file in (Path(__file__).parents[2] / "plugins").glob("*/pyproject.toml"))


def tiny_score_sde() -> ScoreSdeVePipeline:
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=tiny.SIDE,
        time_embedding_type="fourier",
        block_out_channels=(8, 8),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
    )
    return ScoreSdeVePipeline(unet, ScoreSdeVeScheduler())


PIPELINES: dict[str, Callable[[], Any]] = {"ScoreSdeVePipeline": tiny_score_sde}
"""A small untrained pipeline of each class that a package may serve; the core knows none of them."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the packages are installed; their sources stay as they are."""
    folder = tmp_path_factory.mktemp("site")
    before = {package: set(package.rglob("*")) for package in PACKAGES}
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--target", str(folder)]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, *map(str, PACKAGES)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert {package: set(package.rglob("*")) for package in PACKAGES} == before
    return folder


def run(code: str, *arguments: object, path: list[str]) -> str:
    failed, out, err = python(code, *arguments, path=path, INVMM_EVAL_STRICT="1")
    assert not failed, err
    return out


@pytest.fixture(scope="module")
def known(site: Path) -> dict[str, Any]:
    """What the host knows of each distribution."""
    code = """
        import json, sys
        from importlib.metadata import entry_points
        from invmm_eval.plugins.host import host
        modules = {point.name: point.module for point in entry_points(group="invmm_eval")}
        print(json.dumps({
            plugin.distribution: {
                "light": "torch" not in sys.modules,
                "home": sys.modules[modules[plugin.name]].__file__,
                "parts": sum(map(len, plugin.gives.values())),
                "pipelines": {p: name for name in plugin.gives["backbones"] for p in host().backbones[name].pipelines},
            }
            for plugin in host().plugins if plugin.name != "builtin"
        }))
    """
    listing: dict[str, Any] = json.loads(run(code, path=[str(site), *sys.path]))
    return listing


@pytest.fixture(scope="module")
def audits(site: Path, known: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each pipeline class, with the results of ``invmm-eval run`` on a saved pipeline of that class."""
    folder = tmp_path_factory.mktemp("audits")
    pixels = np.random.default_rng(0).integers(0, 256, (tiny.SIDE, tiny.SIDE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "image.png")
    served = sorted(PIPELINES.keys() & {name for package in known.values() for name in package["pipelines"]})
    for name in served:
        PIPELINES[name]().save_pretrained(folder / "models" / name)
    code = """
        import sys
        from invmm_eval.cli.app import app
        folder, *served = sys.argv[1:]
        short = ["max_steps=1", "check_every=1", "draws=2", "check_images=1", "sampler_steps=2"]
        options = ["--images", f"{folder}/image.png", *(word for text in short for word in ("--set", text))]
        for name in served:
            named = ["--model", f"{folder}/models/{name}", "--out", f"{folder}/{name}"]
            app(["run", *named, *options], standalone_mode=False)
    """
    run(code, folder, *served, path=[str(site), *sys.path])
    return folder


@pytest.mark.parametrize(
    "package",
    [package.name for package in PACKAGES if "entry-points.invmm_eval" in (package / "pyproject.toml").read_text()],
)
def test_an_installed_package_is_found_and_serves_its_pipelines(
    package: str, site: Path, known: dict[str, Any], audits: Path
) -> None:
    module = site / package.replace("-", "_")
    assert (module / "py.typed").is_file()
    assert known[package]["light"]
    assert known[package]["home"] == str(module / "__init__.py")
    assert known[package]["parts"] > 0
    for name, backbone in known[package]["pipelines"].items():
        assert name in PIPELINES, "a small pipeline of each class that a package serves belongs into PIPELINES"
        config = json.loads((audits / name / "config.json").read_text())
        [result] = map(json.loads, (audits / name / "results.jsonl").read_text().splitlines())
        assert config["backbone"]["name"] == backbone
        assert (result["error"], result["steps"]) == (None, 1)


def test_without_the_packages_the_classes_go_to_the_backbone_that_takes_any() -> None:
    code = """
        import sys
        from invmm_eval.plugins.host import host
        print(all(host().backbone_for(name) is host().backbone("diffusers") for name in sys.argv[1:]))
    """
    assert run(code, *PIPELINES, path=sys.path).strip() == "True"
