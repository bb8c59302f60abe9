"""A new plugin of every kind installs, is found and used without a change to the core, and passes its own tests."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from invmm_eval.cli.app import app
from invmm_eval.plugins.scaffold import KINDS
from tests.helpers.command import SET, several

NAMES = [f"my-{kind}" for kind in KINDS]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One of each kind, as the command writes it."""
    folder = tmp_path_factory.mktemp("packages")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, kind in zip(NAMES, KINDS, strict=True):
            done = CliRunner().invoke(app, ["new-plugin", name, "--kind", kind])
            assert done.exit_code == 0, done.output
            assert f"cd {name} &&" in done.output
    return [folder / name for name in NAMES]


@pytest.fixture(scope="module")
def environment(packages: list[Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Where all of them are installed."""
    site = tmp_path_factory.mktemp("site")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--target", str(site)]
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *options, *map(str, packages)], check=True)
    path = os.pathsep.join([str(site), *sys.path])
    return {**os.environ, "PYTHONPATH": path, "INVMM_EVAL_STRICT": "1", "OMP_NUM_THREADS": "1"}


def test_installed_they_are_found(environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "invmm_eval", "plugins", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    gives = {plugin["name"]: plugin["gives"] for plugin in json.loads(done.stdout)["plugins"]}
    for name, hook in zip(
        NAMES, ("backbones", "similarities", "noise_families", "estimators", "detectors", "commands"), strict=True
    ):
        assert gives[name][hook] == [name]


def test_their_tests_pass(packages: list[Path], environment: dict[str, str], tmp_path: Path) -> None:
    tests = [str(package / "tests") for package in packages]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--import-mode=importlib", *tests],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "13 passed" in done.stdout


def test_an_estimator_and_a_command_are_used(
    environment: dict[str, str], tiny_folder: Path, images: Path, tmp_path: Path
) -> None:
    """With a threshold that every sample passes."""
    audit, table = tmp_path / "audit", tmp_path / "table.csv"
    run = ["run", "--model", tiny_folder, "--images", images / "a.png", "--out", audit, *SET, "--set", "threshold=-1"]
    *_, helped, listed = several(
        [*run, "--set", "estimators=my-estimator"],
        ["report", audit, "--format", "csv", "--out", table],
        ["report", audit],
        ["--help"],
        ["my-command", audit],
        path=environment["PYTHONPATH"].split(os.pathsep),
    )
    [row] = map(json.loads, (audit / "results.jsonl").read_text().splitlines())
    assert row["estimates"]["my-estimator"] == {"half_dose_rate": 1.0}
    assert json.loads((audit / "config.json").read_text())["versions"]["my-estimator"] == "0.1.0"
    with table.open(encoding="utf-8", newline="") as file:
        assert [float(image["my-estimator_half_dose_rate"]) for image in csv.DictReader(file)] == [1.0]
    assert "My-estimator half_dose_rate" in (audit / "report.html").read_text("utf-8")
    assert " my-command " in helped
    assert listed == f"{row['digest']}\n"


@pytest.mark.parametrize("arguments", [["check", "--select=B,E,F,I,UP,W"], ["format", "--check"]])
def test_they_are_clean(arguments: list[str], packages: list[Path]) -> None:
    for package in packages:
        command = [sys.executable, "-m", "ruff", *arguments, "--isolated", "--line-length=120"]
        done = subprocess.run(command, cwd=package, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("name", "kind", "sentence"),
    [
        ("mine", "sampler", "no kind 'sampler'; choose one of backbone, similarity, noise,"),
        ("My-Model", "noise", "'My-Model' is not a name for a plugin; use lower-case words"),
        ("../mine", "noise", "'../mine' is not a name"),
        ("class", "noise", "'class' is not a name"),
        ("invmm-eval", "noise", "A module invmm_eval is installed"),
        ("taken", "noise", "taken exists; choose another name, or remove it."),
    ],
)
def test_a_wrong_name_or_kind_is_an_error(
    name: str, kind: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("taken").mkdir()
    done = CliRunner().invoke(app, ["new-plugin", name, "--kind", kind])
    assert done.exit_code == 1
    assert sentence in " ".join(done.output.split())
    assert [path.name for path in tmp_path.rglob("*")] == ["taken"]
