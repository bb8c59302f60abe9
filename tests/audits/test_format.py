"""The format of an audit's folder: older ones are read, resumed and reported on, newer ones refused in one sentence."""

import json
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from invmm_eval.audits.folder import read
from invmm_eval.audits.folder.format import FORMAT, differences
from invmm_eval.audits.plan import load_backbone
from invmm_eval.audits.run import audit
from invmm_eval.errors import InvMMError
from invmm_eval.reference import MODEL
from invmm_eval.reports import FORMATS, report
from invmm_eval.reports.findings import find
from invmm_eval.search.result import Status
from invmm_eval.testing import tiny

DATA = Path(__file__).parents[1] / "data" / "format-1"
SETTINGS = {"threshold": 0.9, "max_steps": 50, "check_every": 25, "sampler_steps": 25, "draws": 8, "check_images": 4}
VERSIONS = {name: version(name) for name in ("torch", "diffusers")}


@pytest.fixture(params=["published", "dose"])
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of an audit of format 1."""
    return Path(shutil.copytree(DATA / request.param, tmp_path / request.param))


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A copy of the one that lacks an image, as if the installed torch and diffusers had measured it."""
    folder = Path(shutil.copytree(DATA / "published", tmp_path / "published"))
    change(folder, versions={"invmm-eval": "0.1.0", **VERSIONS})
    return folder


def change(folder: Path, **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **values}))


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def resume(folder: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> list[str]:
    """Resume the audit as its README says; the names of the images that were searched."""
    monkeypatch.chdir(DATA)
    searched: set[str] = set()
    requested = {"similarity": "pixel-cosine", "recipe": "demo", "settings": SETTINGS, "device": "cpu", **options}
    audit(
        requested.pop("model", MODEL),
        "images",
        out=folder,
        on_step=lambda searches: searched.update(search.target.name for search in searches),
        **requested,
    )
    return sorted(searched)


def test_an_older_audit_is_read(old: Path) -> None:
    record = read(old)
    assert record.config["format"] == FORMAT
    assert {row["estimates"] is not None for row in record.rows} == {True}
    found = find(old)
    assert len(found.results) == len(record.rows)
    assert record.progress.counts == found.counts
    assert record.progress.failed == 1
    assert all(record.result(row).noise for row in record.rows if row["status"] != Status.FAILED)
    assert list(record.damaged()) == []
    if old.name == "dose":
        first = found.results[0]
        assert first.ed50 is not None
        assert first.ed50.nats == lines(old)[1]["ed50"][0]


def test_an_audit_with_a_setting_that_no_longer_exists_is_read_and_not_resumed(old: Path) -> None:
    config = json.loads((old / "config.json").read_text())
    change(old, recipe={**config["recipe"], "averaging": 0.9})
    record = read(old)
    assert find(old).recipe.max_steps == config["recipe"]["max_steps"]
    requested = {**record.config, "recipe": {**record.config["recipe"]}}
    del requested["recipe"]["averaging"]
    assert differences(record.config, requested) == ["recipe.averaging is 0.9 there and not set here"]


def test_an_audit_by_a_package_that_is_now_built_in_is_resumed() -> None:
    settings = {"name": "sd3", "dtype": "torch.float32", "prompt_mode": "soft", "max_sequence_length": 256}
    stored = {"backbone": settings, "versions": {"invmm-eval": "0.1.0", "invmm-sd3": "0.1.0", **VERSIONS}}
    model = load_backbone(tiny.tiny_sd3(), device="cpu")
    requested = {"backbone": {**model.settings}, "versions": {"invmm-eval": "0.2.0", **VERSIONS}}
    assert differences(stored, requested) == []
    stored["backbone"] = {**settings, "max_sequence_length": 77}
    assert differences(stored, requested) == ["backbone.max_sequence_length is 77 there and 256 here"]


@pytest.mark.parametrize("form", FORMATS)
def test_an_older_audit_is_reported_on(form: str, old: Path, tmp_path: Path) -> None:
    assert report(old, tmp_path / f"report.{form}", form).stat().st_size > 500


def test_an_older_audit_is_resumed(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was written from another path of the model and by another version of invmm-eval: the values are the same."""
    before = lines(published)
    assert resume(published, monkeypatch) == ["1F34D.png"]
    after = lines(published)
    assert after[: len(before)] == before
    expected = json.loads((DATA / "removed.json").read_text())
    [measured] = [row for row in after[len(before) :] if row["status"] != "failed"]
    for key in ("index", "name", "digest", "status", "dimensions", "steps"):
        assert measured[key] == expected[key]
    for key in ("kl", "similarity"):
        assert measured[key] == pytest.approx(expected[key], rel=1e-3)
    assert measured["format"] == json.loads((published / "config.json").read_text())["format"] == FORMAT
    assert resume(published, monkeypatch) == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"weights": "0" * 64}, r'model is "reference/model" there .*; weights is "0000.*" there and ".*" here'),
        ({"versions": {"invmm-eval": "0.1.0", **VERSIONS, "torch": "1.0"}}, r'versions\.torch is "1\.0" there and "'),
        ({"versions": {"invmm-eval": "0.0.9", **VERSIONS}}, r'versions\.invmm-eval is "0\.0\.9" there and "'),
        ({"format": FORMAT + 1}, rf"has format {FORMAT + 1}, written by invmm-eval 0\.1\.0; .*Upgrade invmm-eval"),
    ],
)
def test_a_resume_that_would_mix_values_is_refused(
    changes: dict[str, Any], sentence: str, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(published, **changes)
    with pytest.raises(InvMMError, match=sentence):
        resume(published, monkeypatch)


def test_a_newer_format_is_one_sentence(old: Path) -> None:
    newer = "".join(json.dumps({**row, "format": 9}) + "\n" for row in lines(old))
    (old / "results.jsonl").write_text(newer)
    with pytest.raises(InvMMError, match=r"results\.jsonl has format 9; .* formats up to 4\. Upgrade invmm-eval"):
        find(old)
    change(old, format=9)
    with pytest.raises(InvMMError, match=r"config\.json has format 9, written by invmm-eval 0\.1\.0; "):
        read(old)


def test_differences_name_the_setting_and_both_values() -> None:
    stored = {"model": "a", "weights": None, "recipe": {"name": "x", "draws": 3}, "seed": 0}
    assert differences(stored, {**stored, "recipe": {"name": "y", "draws": 3}}) == []
    assert differences(stored, {**stored, "model": "b"}) == ['model is "a" there and "b" here']
    assert differences({**stored, "weights": "w"}, {**stored, "weights": "w", "model": "b"}) == []
    assert differences(stored, {**stored, "recipe": {"draws": 4, "xi": 1}}) == [
        "recipe.draws is 3 there and 4 here",
        "recipe.xi is not set there and 1 here",
    ]
