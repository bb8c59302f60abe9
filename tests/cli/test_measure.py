"""The commands that measure: what they print and where, what arrives of their options, and what they keep."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from invmm_eval.audits.folder import read
from invmm_eval.audits.folder.files import read_object
from invmm_eval.audits.folder.requested import Requested
from invmm_eval.audits.folder.writing import Store
from invmm_eval.audits.results import NO_SHARE
from invmm_eval.audits.run import audit
from invmm_eval.cli.ending import end
from invmm_eval.reports.findings import find
from invmm_eval.search.status import Status
from tests.helpers import audits
from tests.helpers.command import MAIN, SET, TINY, Invoke, lines, python


def test_captions_lie_beside_the_images(
    invoke: Invoke, tiny_stable_diffusion_folder: Path, images: Path, tmp_path: Path
) -> None:
    for name, text in (("a", "a red cat\n"), ("b", "the blue heart")):
        (images / f"{name}.txt").write_text(text)
    command = [*("run", "--model", tiny_stable_diffusion_folder, "--images", images, "--out", tmp_path / "out"), *SET]
    told = [*command, "--backbone-option", "prompt_mode=caption"]
    code, out, err = invoke(*told)
    assert (code, out) == (1, "")
    assert err.endswith("needs a caption for each image; pass them with captions= or --captions.\n")
    assert not (tmp_path / "out").exists()
    invoke.out(*told, "--captions", ".txt")
    rows = read(tmp_path / "out").rows
    assert [row["caption"] for row in rows] == [row["prompt"] for row in rows] == ["a red cat", "the blue heart"]


def test_a_run(
    invoke: Invoke,
    tiny_folder: Path,
    images: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out_folder = tmp_path / "out"
    command = ["run", "--model", tiny_folder, "--images", images, "--out", out_folder, *SET]
    code, out, err = invoke(*command)
    assert code == 0
    rows = [line.split() for line in out.splitlines() if line.strip().startswith(("a.png", "b.png"))]
    assert sorted(row[:4] for row in rows) == [
        ["a.png", "not", "replicated", "none"],
        ["b.png", "not", "replicated", "none"],
    ]
    assert out.splitlines()[-2:] == [
        "Of 2 images: 0 memorized, 0 replicable, 2 not replicated, 0 failed.",
        f"Results are in {out_folder}. To write a report: invmm-eval report {out_folder}",
    ]
    assert "compared by pixel-cosine, not by SSCD: it is adequate up to 64x64 pixels" in caplog.text
    assert "Traceback" not in err
    assert {path.name for path in out_folder.iterdir()} == {
        *(".lock", "config.json", "images.json", "manifest.json", "request.json", "results.jsonl", "samples", "tensors")
    }
    expected = audit(tiny_folder, images, settings=TINY)
    assert [(row["name"], row["kl"]) for row in lines(out_folder)] == [(found.name, found.kl) for found in expected]
    assert [len(list((out_folder / part).glob("??/*"))) for part in ("tensors", "samples")] == [2, 2]

    written = {path: path.stat().st_mtime_ns for path in out_folder.glob("*/*/*")}
    kept = lines(out_folder)
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(images / "c.png")
    again = invoke.out(*command)
    assert "Of 3 images: 0 memorized, 0 replicable, 3 not replicated, 0 failed." in again
    assert lines(out_folder)[:2] == kept
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert [row["name"] for row in lines(out_folder)] == ["a.png", "b.png", "c.png"]

    monkeypatch.setattr("invmm_eval.cli.ending.SHOWN", 1)
    _, short, _ = invoke(*command)
    assert [name for name in ("a.png", "b.png", "c.png") if name in short] == [find(out_folder).results[0].name]
    assert "These are the 1 most memorized of 3 images." in short


def test_an_audit_of_which_one_image_fails_and_its_status(
    invoke: Invoke, tiny_folder: Path, images: Path, tmp_path: Path
) -> None:
    out_folder = tmp_path / "out"
    (images / "c.png").write_bytes(b"no image")
    out = invoke.out("run", "--model", tiny_folder, "--images", images, "--out", out_folder, *SET)
    counts, failed, _, again = out.splitlines()[-4:]
    assert counts == "Of 3 images: 0 memorized, 0 replicable, 2 not replicated, 1 failed."
    assert failed.startswith(f"1 failed: The image '{images / 'c.png'}' cannot be used: ")
    assert again == "The same command measures the failed images again, and no others."
    code, out, err = invoke("status", out_folder)
    assert (code, err) == (0, "")
    told, spent, rate = out.splitlines()
    assert told == "2 of 3 images are done: 0 memorized, 0 replicable, 2 not replicated, 1 failed, 0 waiting."
    each = [row["rows"] for row in lines(out_folder) if "rows" in row]
    assert spent == f"Network rows: {sum(each):,} spent."
    assert re.fullmatch(r"The audit is not running; it ran at [\d,.]+ images an hour\. Run .* to resume\.", rate)

    with Store(
        out_folder,
        read_object(out_folder / "config.json"),
        Requested.now(["a.png", "b.png", "c.png", "d.png"]),
    ):
        _, out, _ = invoke("status", out_folder)
    told, spent, rate = out.splitlines()
    assert told.endswith("1 failed, 1 waiting.")
    assert spent == f"Network rows: {sum(each):,} spent, about {sum(each) // 2:,} left."
    assert rate == "The audit is running."
    assert invoke("verify", out_folder)[0] == 0


def test_a_run_where_all_images_fail_is_an_error(invoke: Invoke, tiny_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "[red]images"
    for name in ("[a].png", "[/].png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"no image")
    out_folder = tmp_path / "[bold]out"
    code, out, err = invoke("run", "--model", tiny_folder, "--images", folder, "--out", out_folder, *SET)
    assert code == 1
    assert "[a].png" in out
    assert "[/].png" in out
    assert out.splitlines()[-3] == "Of 2 images: 0 memorized, 0 replicable, 0 not replicated, 2 failed."
    assert out.splitlines()[-2].startswith(f"Results are in {out_folder}.")
    assert err.splitlines()[-1].startswith(f"error All 2 images failed for the same reason: The image '{folder}")
    assert [row["status"] for row in lines(out_folder)] == ["failed", "failed"]


def test_a_run_says_what_it_does_and_reads_its_options_before_it_imports_torch() -> None:
    told = "Measuring how much gone memorized nowhere; results go to out.\n"
    for wrong, sentence in (("--set=speed=3", "'speed=3' is not KEY=VALUE "), ("--shard=4/3", "The shard is '4/3'; ")):
        code, _, err = python(
            f"import sys; sys.modules['torch'] = None; {MAIN}",
            *("run", "--model", "gone", "--images", "nowhere", "--out", "out", wrong),
        )
        assert code == 1
        assert err.startswith(f"{told}error {sentence}")


@pytest.mark.parametrize(("threshold", "found"), [(-1, 3), (1, 0)])
def test_an_exit_code_tells_what_was_found(
    threshold: int, found: int, invoke: Invoke, tiny_folder: Path, images: Path, tmp_path: Path
) -> None:
    """With a threshold that every sample passes, the noise need not move, which is memorized; with 1 none passes."""
    command = ["run", "--model", tiny_folder, "--images", images, "--out", tmp_path / "out", *SET, "--set", "confirm=8"]
    command += ["--set", f"threshold={threshold}"]
    assert invoke(*command)[0] == 0
    for verdict in ("replicated", "memorized"):
        code, _, err = invoke(*command, "--fail-on", verdict)
        assert code == found
        assert (f"--fail-on {verdict}: 2 of 2 images, such as 'a.png'." in err) is bool(found)
    (images / "b.png").write_bytes(b"no picture")
    code, _, err = invoke(*command, "--fail-on", "memorized")
    assert (code, "1 of 2 images could not be measured" in err) == (found or 1, not found)


def test_a_searched_prompt_is_said_to_be_no_caption(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for mode, said in (("soft", True), ("caption", False)):
        config = {**audits.CONFIG, "backbone": {**audits.CONFIG["backbone"], "prompt_mode": mode}}
        end(audits.write(tmp_path / mode, [audits.result(0, Status.EXHAUSTED)], config), debug=False)
        assert ("far more often with its caption" in capsys.readouterr().out) is said


def test_a_gate_on_memorized_needs_a_recipe_that_tells_it(
    invoke: Invoke, tiny_folder: Path, images: Path, tmp_path: Path
) -> None:
    command = ["run", "--model", tiny_folder, "--images", images, "--out", tmp_path / "out", *SET, "--recipe", "demo"]
    for more in ((), ("--dry-run",)):
        code, _, err = invoke(*command, "--fail-on", "memorized", *more)
        assert (code, (tmp_path / "out").exists()) == (1, False)
        assert "The recipe demo does not estimate the share of plain samples that are copies" in err
    out = invoke.out(*command, "--fail-on", "replicated")
    assert NO_SHARE in out
    assert NO_SHARE in find(tmp_path / "out").paragraphs


def test_the_traceback_of_an_unexpected_error_is_shown_on_request(
    invoke: Invoke, tiny_folder: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken_comparison(*_: object) -> None:
        raise KeyError("hiden_states")

    monkeypatch.setattr("invmm_eval.similarity.pixel_cosine.PixelCosine.compare", broken_comparison)
    command = ["run", "--model", tiny_folder, "--images", images, "--out", tmp_path / "out", *SET]
    code, _, err = invoke(*command)
    assert code == 1
    *_, hint, last = err.splitlines()
    assert hint.startswith(f"Tracebacks are in {tmp_path / 'out' / 'results.jsonl'}; with --debug ")
    assert last == "error All 2 images failed for the same reason: KeyError: 'hiden_states'"
    for before, after in (["--debug"], []), ([], ["--debug"]):
        code, _, err = invoke(*before, *command, *after)
        assert code == 1
        assert 'raise KeyError("hiden_states")' in err
        assert err.count("in broken_comparison") == 1
