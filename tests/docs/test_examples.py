"""Each example runs, and finds what it says."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from invmm_eval.reference import MODEL, pictures

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(example: str, *arguments: object, folder: Path) -> tuple[int, str]:
    """The exit code and what was printed."""
    command = [sys.executable, str(EXAMPLES / example), *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout


def test_the_evaluation_script_tells_a_repeated_picture_from_a_held_out_one(tmp_path: Path) -> None:
    known = pictures()
    for folder, picture in (("pictures", known[0]), ("others", known[-1])):
        (tmp_path / folder).mkdir()
        picture.image.save(tmp_path / folder / "one.png")
    options = {"model": MODEL, "images": "pictures", "held-out": "others", "out": "invmm.json"}
    arguments = [part for key, value in options.items() for part in (f"--{key}", value)]
    code, told = run("evaluate_model.py", *arguments, "--recipe", "demo", "--max-steps", 50, folder=tmp_path)
    assert code == 1
    assert told.splitlines()[-2:] == [
        "1 of 1 images were replicated; 0 failed.",
        "0 of 1 held-out images were replicated; 0 failed.",
    ]
    saved = json.loads((tmp_path / "invmm.json").read_text())
    assert (saved["images"]["status"], saved["held_out"]["status"]) == (["replicated"], ["exhausted"])


def test_fine_tuning_stops_when_the_repeated_picture_is_memorized(tmp_path: Path) -> None:
    code, told = run("stop_when_memorized.py", folder=tmp_path)
    assert code == 0
    found = re.findall(r"^step (\d+): .* \((.*)\): InvMM (\S+),", told, re.M)
    first, last = found[:2], found[-2:]
    assert [invmm for _, _, invmm in first] == ["inf", "inf"], "at first neither is memorized"
    (step, repeated, low), (_, never_seen, high) = last
    assert (repeated, never_seen) == ("8 times in the set", "not in the set")
    assert float(low) < 0.1
    assert high == "inf"
    assert told.endswith(f"Stopped at step {step}: a canary is memorized.\n")


def test_a_plugin_may_be_registered_from_a_script(tmp_path: Path) -> None:
    code, told = run("own_similarity.py", folder=tmp_path)
    assert code == 0
    repeated, held_out = told.splitlines()[-2:]
    assert "(256 copies): replicated, InvMM 0.0" in repeated
    assert "(0 copies): exhausted, InvMM inf" in held_out


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_each_example_has_a_test(example: Path) -> None:
    tests = (path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    assert any(re.search(rf'["/]{example.name}"', text) for text in tests)


def test_a_noise_family_may_be_registered_from_a_script(tmp_path: Path) -> None:
    code, printed = run("low_rank_noise.py", folder=tmp_path)
    assert code == 0
    assert re.search(r"\(256 copies\): replicated, InvMM 0\.\d+$", printed.strip())
