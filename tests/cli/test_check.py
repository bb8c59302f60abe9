"""The command that answers about one picture, on the reference model."""

from pathlib import Path

import pytest

from invmm_eval.reference import MODEL, pictures
from tests.helpers.command import SHARE, Invoke


def test_a_picture_is_checked_and_a_second_question_is_answered_from_the_folder(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pictures()[0].image.save("asked.png")
    Path("mine").symlink_to(MODEL)
    command = ["check", "asked.png", "--model", tmp_path / "mine", *SHARE]
    code, out, err = invoke(*command, "--out", "answer.html")
    assert code == 0, err
    assert "the search is kept in check-mine." in err
    assert out.startswith("Yes: plain sampling gives copies of it.\nAbout 1 in ")
    assert "times its error for the mirrored image" in out
    assert out.endswith("Wrote answer.html.\n")
    kept = Path("check-mine/results.jsonl").read_bytes()
    again = invoke.out(*command, "--audit", "check-mine", "--out", "again.html")
    assert again == out.replace("answer.html", "again.html")
    assert Path("check-mine/results.jsonl").read_bytes() == kept
    page = Path("answer.html").read_text("utf-8")
    assert "Did mine memorize asked.png?" in page
    assert str(tmp_path) not in page, "it is sent to others"


def test_what_is_no_picture_fails_in_words(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("asked.png").write_bytes(b"no picture")
    code, out, _ = invoke("check", "asked.png", "--model", "reference", *SHARE)
    assert code == 1
    assert out.startswith("It could not be measured.\nThe image cannot be used: ")


def test_wrong_requests_end_before_the_model_is_loaded(invoke: Invoke, tmp_path: Path) -> None:
    code, _, err = invoke("check", "reference", "--model", tmp_path / "missing")
    assert code == 1
    assert err.endswith("error reference names 15 images; check takes one, invmm-eval run many.\n")
    code, _, err = invoke("check", "reference", "--model", tmp_path / "missing", "--out", "answer.pdf")
    assert code == 1
    assert err == "error answer.pdf does not end in .html; a page is written, which a browser prints as PDF.\n"
