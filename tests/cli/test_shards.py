"""Shards on the command line: each in its folder, then together."""

from pathlib import Path

from invmm_eval.audits.folder import read
from tests.helpers.command import MAIN, SET, Invoke, python

ALONE = f"import sys; sys.modules |= dict.fromkeys(('torch', 'diffusers', 'datasets')); {MAIN}"
"""The command where these libraries cannot be imported: folders are merged without them."""


def test_shards_are_run_and_merged(invoke: Invoke, tiny_folder: Path, images: Path, tmp_path: Path) -> None:
    command = ["run", "--model", tiny_folder, "--images", images, "--recipe", "demo", *SET]
    invoke.out(*command, "--out", tmp_path / "whole")
    parts = []
    for number in (1, 2):
        parts.append(tmp_path / f"part-{number}")
        invoke.out(*command, "--out", parts[-1], "--shard", f"{number}/2")
    code, out, err = python(ALONE, "merge", tmp_path / "merged", *parts)
    assert code == 0, err
    assert out.startswith(f"Merged 2 shards of 2 images into {tmp_path / 'merged'}.\n")
    audits = (read(tmp_path / name) for name in ("merged", "whole"))
    merged, whole = ([audit.result(row).record() for row in audit.rows] for audit in audits)
    values = merged[0].keys() - {"seconds_steps", "seconds_checks"}
    assert [[row[key] for key in values] for row in merged] == [[row[key] for key in values] for row in whole]
    assert invoke.out("status", tmp_path / "merged").startswith("2 of 2 images are done")
    assert invoke(*command, "--out", tmp_path / "merged")[0] == 0, "the merged folder is that of the whole run"
    code, _, err = invoke("merge", tmp_path / "merged", *parts)
    assert (code, err.count("\n")) == (1, 1)
    assert "is not empty" in err


def test_a_shard_of_a_whole_set_is_ranked_and_says_what_comes_next(
    invoke: Invoke, tiny_folder: Path, images: Path, tmp_path: Path
) -> None:
    for number in (1, 2):
        out = invoke.out(
            *("audit", "--model", tiny_folder, "--images", images, "--out", tmp_path / str(number)),
            *("--shard", f"{number}/2"),
        )
        assert f"Shard {number}/2 is ranked" in out
    code, out, err = python(ALONE, "merge", tmp_path / "merged", tmp_path / "1", tmp_path / "2")
    assert code == 0, err
    assert f"run invmm-eval audit --out {tmp_path / 'merged'} with the same options" in out


def test_a_stream_is_screened_in_shards(invoke: Invoke, tiny_folder: Path, images: Path, tmp_path: Path) -> None:
    command = ["screen", "--model", tiny_folder, "--images", f"stream:{images}:train"]
    invoke.out(*command, "--out", tmp_path / "whole")
    for number in (1, 2):
        invoke.out(*command, "--out", tmp_path / str(number), "--shard", f"{number}/2")
    invoke.out("merge", tmp_path / "merged", tmp_path / "1", tmp_path / "2")
    assert (tmp_path / "merged" / "screening.csv").read_text() == (tmp_path / "whole" / "screening.csv").read_text()
