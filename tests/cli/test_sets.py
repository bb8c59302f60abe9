"""The commands for whole sets: what they print, keep and refuse."""

from functools import partial
from pathlib import Path

import pyarrow.csv
import pytest

from invmm_eval.audits import price
from tests.helpers.command import SET, Invoke, lines


def test_a_set_is_ranked_and_the_ranking_kept(invoke: Invoke, tiny_folder: Path, images: Path, tmp_path: Path) -> None:
    command = ["screen", "--model", tiny_folder, "--images", images, "--out", tmp_path / "out"]
    out = invoke.out(*command)
    table = pyarrow.csv.read_csv(tmp_path / "out" / "screening.csv").to_pylist()
    assert {row["name"] for row in table} == {"a.png", "b.png"}
    assert table[0]["score"] >= table[1]["score"]
    shown = [line.split()[1] for line in out.splitlines() if ".png" in line]
    assert shown == [row["name"] for row in table]
    assert "These are the 2 most suspicious of 2 images; 0 failed." in out
    kept = (tmp_path / "out" / "screening.jsonl").read_bytes()
    told = (0, "2 images have a score, 0 failed; none was searched.\n", "")
    assert invoke("status", tmp_path / "out") == told
    assert invoke(*command)[1] == out
    assert (tmp_path / "out" / "screening.jsonl").read_bytes() == kept
    code, _, err = invoke(*command, "--seed", "1")
    assert code == 1
    assert "holds a screening with another config: seed is 0 there and 1 here." in err
    (tmp_path / "bad.png").touch()
    code, out, err = invoke(*command[:3], "--images", tmp_path / "bad.png", "--out", tmp_path / "bad")
    assert code == 1
    assert "These are the 1 most suspicious of 1 image; 1 failed." in out
    assert err.splitlines()[-1].startswith(f"error No image could be scored. Of {tmp_path / 'bad.png'}: The image ")


def test_a_set_is_audited(invoke: Invoke, tiny_folder: Path, images: Path, tmp_path: Path) -> None:
    command = ["audit", "--model", tiny_folder, "--images", images, "--out", tmp_path / "out"]
    out = invoke.out(*command, "--clean", "1", "--control", "1", "--recipe", "fast")
    assert "0 of the 1 most suspicious images are memorized, and 0 of the 1 drawn at random" in out
    assert "since 1 in a row are not memorized" in out
    assert {row["name"] for row in lines(tmp_path / "out")} == {"a.png", "b.png"}
    assert invoke.out("status", tmp_path / "out").startswith("2 of 2 images are done")
    assert invoke("verify", tmp_path / "out")[0] == 0
    for file in ("screening.jsonl", "whole.json"):
        (tmp_path / "out" / file).write_text("{}")
        assert f"{tmp_path / 'out' / file} is not what the run wrote" in invoke("verify", tmp_path / "out")[2]


def test_a_dry_run_writes_nothing(
    invoke: Invoke, tiny_folder: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(price, "row_seconds", partial(price.row_seconds, seconds=0.1))
    for name, more in (("screen", ()), ("audit", ()), ("run", SET)):
        command = [name, "--model", tiny_folder, "--images", images, "--out", tmp_path / "out", "--dry-run", *more]
        out = invoke.out(*command)
        assert out.startswith("2 images. Nothing was written.")
        assert ("Screen: 8 network rows" in out) is (name != "run")
        assert ("Search: " in out) is (name != "screen")
    others = (
        ("check", images / "a.png", "--model", tiny_folder, "--audit", tmp_path / "out"),
        ("calibrate", "--model", tiny_folder, "--held-out", images, "--rate", "0.5", "--out", tmp_path / "out", *SET),
        ("demo", "--quick", "--out", tmp_path / "out"),
    )
    for other, told in zip(others, ("1 image.", "2 images.", "7 images."), strict=True):
        out = invoke.out(*other, "--dry-run")
        assert out.startswith(f"{told} Nothing was written.")
        assert "Search: " in out
    assert not (tmp_path / "out").exists()


def test_a_recipe_that_cannot_tell_what_is_memorized_is_refused(
    invoke: Invoke, tiny_folder: Path, images: Path, tmp_path: Path
) -> None:
    command = ["audit", "--model", tiny_folder, "--images", images, "--out", tmp_path / "out", "--recipe", "demo"]
    for more in ((), ("--dry-run",)):
        code, _, err = invoke(*command, *more)
        assert code == 1
        assert "The recipe demo does not estimate the share of plain samples that are copies" in err


def test_a_budget_that_is_none_is_refused(invoke: Invoke, tiny_folder: Path, images: Path, tmp_path: Path) -> None:
    code, _, err = invoke(
        *("audit", "--model", tiny_folder, "--images", images, "--out", tmp_path / "out", "--budget", "a lot")
    )
    assert (code, err.splitlines()[-1]) == (
        1,
        "error The budget is 'a lot'; give network rows such as 200000, or hours such as 2h.",
    )
