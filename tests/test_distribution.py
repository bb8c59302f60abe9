"""The wheels of the package and of every plugin work outside the checkout."""

import json
import os
import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import ScoreSdeVePipeline, ScoreSdeVeScheduler, UNet2DModel
from PIL import Image

from invmm_eval.testing import tiny

ROOT = Path(__file__).parents[1]
PROJECTS = {"invmm_eval": ROOT} | {path.name.replace("-", "_"): path for path in sorted((ROOT / "plugins").iterdir())}
MEASURE = """
import evaluate, invmm_eval
from invmm_eval.reference import MODEL, pictures

invmm = evaluate.load(invmm_eval.metric_path())
images = [picture.image for picture in pictures() if picture.copies == 256][:1]
settings = {"max_steps": 10, "check_every": 10, "sampler_steps": 10}
scores = invmm.compute(references=images, model=str(MODEL), recipe="demo", similarity="pixel-cosine", settings=settings)
print(invmm_eval.__file__, scores["status"])
"""
SERVED = """
import json, sys
from importlib.metadata import entry_points
from pathlib import Path
from invmm_eval.plugins.host import host

home, image = map(Path, sys.argv[1:])
modules = {point.name: point.module for point in entry_points(group="invmm_eval")}
listing = {
    plugin.distribution: {
        "light": "torch" not in sys.modules,
        "home": sys.modules[modules[plugin.name]].__file__,
        "parts": sum(map(len, plugin.gives.values())),
        "pipelines": {p: name for name in plugin.gives["backbones"] for p in host().backbones[name].pipelines},
    }
    for plugin in host().plugins if plugin.name != "builtin"
}
from invmm_eval import audit

settings = {"max_steps": 1, "check_every": 1, "draws": 2, "check_images": 1, "sampler_steps": 2, "plain": 2}
for name in {name for package in listing.values() for name in package["pipelines"]}:
    audit(home / name, image, out=home / f"{name} audit", settings=settings)
print(json.dumps(listing))
"""
"""What the host knows of each package, after an audit of a model of each class that a package serves."""


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


def run(*command: str | Path, cwd: Path) -> str:
    """What a command prints; without this checkout on its path."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    offline = {"HF_HOME": str(cwd / "cache"), "HF_HUB_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1"}
    clean = {**kept, **offline, "INVMM_EVAL_STRICT": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One wheel per project, as ``make dist`` builds it."""
    folder = tmp_path_factory.mktemp("wheels")
    for project in PROJECTS.values():
        run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder, cwd=project)
    return {wheel.name.split("-")[0]: wheel for wheel in folder.glob("*.whl")}


def test_each_wheel_holds_all_files_of_its_package_and_the_licence(wheels: dict[str, Path]) -> None:
    assert wheels.keys() == PROJECTS.keys()
    for name, wheel in wheels.items():
        source = PROJECTS[name] if name == "invmm_eval" else PROJECTS[name] / "src"
        files = {
            path.relative_to(source).as_posix()
            for path in (source / name).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        held = zipfile.ZipFile(wheel).namelist()
        assert files == {file for file in held if ".dist-info/" not in file}
        assert any(file.endswith(".dist-info/licenses/LICENSE") for file in held)
        if name == "invmm_eval":
            assert any(file.endswith("licenses/invmm_eval/reference/LICENSE") for file in held)


def test_the_description_for_package_indexes_links_to_nothing_in_the_checkout(wheels: dict[str, Path]) -> None:
    for wheel in wheels.values():
        archive = zipfile.ZipFile(wheel)
        [metadata] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        links = re.findall(r"\]\(([^)]*)\)", archive.read(metadata).decode())
        assert all(link.startswith("https://") for link in links)


@pytest.fixture(scope="module")
def env(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with all wheels, which borrows only the dependencies of the present one."""
    folder = tmp_path_factory.mktemp("env")
    venv.create(folder, with_pip=False, symlinks=True)
    install = ("-m", "pip", "--python", folder / "bin" / "python", "install", "--quiet", "--no-index", "--no-deps")
    run(sys.executable, *install, "--no-compile", *wheels.values(), cwd=folder)
    borrowed = [path for path in sys.path if path.endswith("-packages")]
    (site(folder) / "borrowed.pth").write_text("\n".join(borrowed))
    return folder


def site(env: Path) -> Path:
    [found] = env.glob("lib/python*/site-packages")
    return found


def test_the_demo_and_the_metric_run_from_the_wheels(env: Path, tmp_path: Path) -> None:
    command = env / "bin" / "invmm-eval"
    listed = run(command, "plugins", cwd=tmp_path)
    for name, project in PROJECTS.items():
        groups = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["project"].get("entry-points", {})
        assert (name.replace("_", "-") in listed) is (name == "invmm_eval" or "invmm_eval" in groups)
    fewer = [f"--set={setting}" for setting in ("plain=32", "sampler_steps=5", "max_steps=1", "check_images=2")]
    shown = run(command, "demo", "--quick", "--out", "demo", *fewer, cwd=tmp_path)
    assert re.search(r"[1-9] of 7 images (is|are) memorized", shown)
    path, status = run(env / "bin" / "python", "-c", MEASURE, cwd=tmp_path).split(maxsplit=1)
    assert Path(path).is_relative_to(site(env))
    assert status.strip() == "['replicated']"


def test_each_plugin_is_found_and_serves_its_pipelines(env: Path, tmp_path: Path) -> None:
    """A new kind of model comes by installing alone."""
    for name, make in PIPELINES.items():
        make().save_pretrained(tmp_path / name)
    Image.effect_noise((tiny.SIDE, tiny.SIDE), 50).convert("RGB").save(tmp_path / "image.png")
    known = json.loads(run(env / "bin" / "python", "-c", SERVED, tmp_path, tmp_path / "image.png", cwd=tmp_path))
    projects = [path / "pyproject.toml" for path in PROJECTS.values() if path != ROOT]
    assert known.keys() == {file.parent.name for file in projects if "entry-points.invmm_eval" in file.read_text()}
    for package, found in known.items():
        module = site(env) / package.replace("-", "_")
        assert (module / "py.typed").is_file()
        assert (found["light"], found["home"]) == (True, str(module / "__init__.py"))
        assert found["parts"] > 0
    served = {pipeline: backbone for found in known.values() for pipeline, backbone in found["pipelines"].items()}
    assert served.keys() == PIPELINES.keys(), "a small pipeline of each class that a package serves belongs there"
    for name, backbone in served.items():
        config = json.loads((tmp_path / f"{name} audit" / "config.json").read_text())
        [result] = map(json.loads, (tmp_path / f"{name} audit" / "results.jsonl").read_text().splitlines())
        assert config["backbone"]["name"] == backbone
        assert (result.get("error"), result["steps"]) == (None, 1)
