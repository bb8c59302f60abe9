"""Packages of third parties are installed and used without a change to the core."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers.command import SET, several

PACKAGES = Path(__file__).with_name("packages")
VALUES = {"mean-similarity_mean", "mean-similarity_drawn"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """An audit that was run with the estimator, its reports, and what the command printed: in a process with both."""
    site, folder = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("audit")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--no-compile", "--quiet", "--target", str(site)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, *map(str, PACKAGES.iterdir())], check=True)
    Image.effect_noise((8, 8), 50).convert("RGB").save(folder / "image.png")
    audit = folder / "audit"
    run = ["run", "--model", tiny_folder, "--images", folder / "image.png", "--out", audit, *SET]
    printed = several(
        [*run, "--set", "estimators=mean-similarity"],
        *(["report", audit, "--format", form, "--out", folder / f"report.{form}"] for form in ("csv", "html")),
        ["--help"],
        ["count-images", "--help"],
        ["count-images", audit],
        path=[str(site), *sys.path],
    )
    for name, text in zip(("help", "own help", "counted"), printed[-3:], strict=True):
        (folder / name).write_text(text)
    return folder


def test_the_values_of_an_estimator_are_in_the_row_of_each_image(folder: Path) -> None:
    [row] = map(json.loads, (folder / "audit" / "results.jsonl").read_text().splitlines())
    values = row["estimates"]["mean-similarity"]
    assert values["drawn"] == 4
    assert -1 <= values["mean"] <= 1


def test_the_version_of_its_package_is_recorded(folder: Path) -> None:
    assert json.loads((folder / "audit" / "config.json").read_text())["versions"]["their-estimator"] == "3.2"


def test_its_values_are_in_the_table_and_the_report(folder: Path) -> None:
    with (folder / "report.csv").open(encoding="utf-8", newline="") as table:
        [row] = csv.DictReader(table)
    assert row.keys() >= VALUES
    assert float(row["mean-similarity_drawn"]) == 4
    assert "Mean-similarity mean" in (folder / "report.html").read_text("utf-8")


def test_a_command_is_listed_has_its_help_and_runs(folder: Path) -> None:
    assert "Count the images of an audit." in (folder / "help").read_text()
    assert "Count the images of an audit that have a result." in (folder / "own help").read_text()
    assert (folder / "counted").read_text() == "1 images\n"
