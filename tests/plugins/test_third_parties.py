"""Packages of third parties are installed and used without a change to the core."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers.command import MAIN, SET, python

PACKAGES = Path(__file__).with_name("packages")
VALUES = {"mean-similarity_mean", "mean-similarity_drawn"}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The path of a process in which both packages are installed."""
    site = tmp_path_factory.mktemp("site")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--target", str(site)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, *map(str, PACKAGES.iterdir())], check=True)
    return [str(site), *sys.path]


@pytest.fixture(scope="module")
def audit(path: list[str], tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """An audit that was run with the estimator."""
    folder = tmp_path_factory.mktemp("audit")
    Image.effect_noise((8, 8), 50).convert("RGB").save(folder / "image.png")
    options = ["--model", tiny_folder, "--images", folder / "image.png", "--out", folder / "audit"]
    code, _, err = python(MAIN, "run", *options, *SET, "--set", "estimators=mean-similarity", path=path)
    assert code == 0, err
    return folder / "audit"


def test_the_values_of_an_estimator_are_in_the_row_of_each_image(audit: Path) -> None:
    [row] = map(json.loads, (audit / "results.jsonl").read_text().splitlines())
    values = row["estimates"]["mean-similarity"]
    assert values["drawn"] == 4
    assert -1 <= values["mean"] <= 1


def test_the_version_of_its_package_is_recorded(audit: Path) -> None:
    assert json.loads((audit / "config.json").read_text())["versions"]["their-estimator"] == "3.2"


def test_its_values_are_in_the_table_and_the_report(audit: Path, path: list[str], tmp_path: Path) -> None:
    for form in ("csv", "html"):
        file = tmp_path / f"report.{form}"
        assert python(MAIN, "report", audit, "--format", form, "--out", file, path=path)[0] == 0
    with (tmp_path / "report.csv").open(encoding="utf-8", newline="") as table:
        [row] = csv.DictReader(table)
    assert row.keys() >= VALUES
    assert float(row["mean-similarity_drawn"]) == 4
    assert "mean-similarity mean" in (tmp_path / "report.html").read_text("utf-8")


def test_a_command_is_listed_has_its_help_and_runs(audit: Path, path: list[str]) -> None:
    assert "Count the images of an audit." in python(MAIN, "--help", path=path)[1]
    code, out, _ = python(MAIN, "count-images", "--help", path=path)
    assert code == 0
    assert "Count the images of an audit that have a result." in out
    assert python(MAIN, "count-images", audit, path=path) == (0, "1 images\n", "")
