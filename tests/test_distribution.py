"""The wheels of the package and of every plugin work outside the checkout."""

import os
import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECTS = {"invmm_eval": ROOT} | {path.name.replace("-", "_"): path for path in sorted((ROOT / "plugins").iterdir())}
MEASURE = """
import evaluate, invmm_eval
from invmm_eval.reference import MODEL, pictures

invmm = evaluate.load(invmm_eval.metric_path())
images = [picture.image for picture in pictures() if picture.copies == 256][:1]
scores = invmm.compute(references=images, model=str(MODEL), recipe="demo", similarity="pixel-cosine", max_steps=50)
print(invmm_eval.__file__, scores["status"])
"""


def run(*command: str | Path, cwd: Path) -> str:
    """What a command prints; without this checkout on its path."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    clean = {**kept, "HF_HOME": str(cwd / "cache"), "HF_HUB_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1"}
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


def test_the_demo_and_the_metric_run_from_the_wheels(wheels: dict[str, Path], tmp_path: Path) -> None:
    """In a fresh environment that borrows only the dependencies of the present one."""
    venv.create(tmp_path / "env", with_pip=False, symlinks=True)
    python = tmp_path / "env" / "bin" / "python"
    install = ("-m", "pip", "--python", python, "install", "--quiet", "--no-index", "--no-deps")
    run(sys.executable, *install, *wheels.values(), cwd=tmp_path)
    [site] = (tmp_path / "env").glob("lib/python*/site-packages")
    borrowed = [path for path in sys.path if path.endswith("-packages")]
    (site / "borrowed.pth").write_text("\n".join(borrowed))

    command = python.with_name("invmm-eval")
    listed = run(command, "plugins", cwd=tmp_path)
    for name, project in PROJECTS.items():
        groups = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["project"].get("entry-points", {})
        assert (name.replace("_", "-") in listed) is (name == "invmm_eval" or "invmm_eval" in groups)
    shown = run(command, "demo", "--quick", "--out", "demo", cwd=tmp_path)
    assert re.search(r"[1-9] of 7 pictures (is|are) memorized", shown)
    path, status = run(python, "-c", MEASURE, cwd=tmp_path).split(maxsplit=1)
    assert Path(path).is_relative_to(site)
    assert status.strip() == "['replicated']"
