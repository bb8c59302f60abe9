"""Whatever happens to a file of an audit's folder, values are right, or one sentence names the file and the way out."""

import json
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from invmm_eval.audits.calibration import Calibration
from invmm_eval.audits.folder import read
from invmm_eval.audits.folder.manifest import write_manifest
from invmm_eval.audits.folder.scores import Score, Scores, read_scores
from invmm_eval.audits.images import Source
from invmm_eval.audits.plan import Plan
from invmm_eval.audits.whole.found import Design
from invmm_eval.errors import InvMMError
from invmm_eval.reports.findings import find
from invmm_eval.search.result import Result
from tests.helpers.audits import planned, run_plan
from tests.helpers.command import Invoke
from tests.helpers.exact import Mixture, pictures

PICTURES = torch.cat([pictures(2), pictures(1, seed=99)])
SOURCES = [*(Source(f"picture {index}", picture) for index, picture in enumerate(PICTURES)), Source("none", b"")]
WRITTEN = ("config.json", "images.json", "request.json", "whole.json", "calibration.json")
LINES = ("results.jsonl", "screening.jsonl")
WAYS = (
    "emove it",
    "hoose another folder",
    "remove the file",
    "run the same audit again",
    "calibrate writes one",
    "pgrade",
)
SCREENING = {"weights": "5" * 64, "detector": "any", "seed": 0}


def plan() -> Plan:
    settings = {"max_steps": 10, "check_every": 5, "draws": 4, "check_images": 2, "sampler_steps": 4}
    return planned(Mixture(PICTURES[:2]), similarity="pixel-cosine", settings=settings)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An audit with a file of each kind."""
    folder = tmp_path_factory.mktemp("audit") / "audit"
    request = {"model": "exact", "images": ["a"], "captions": None, "recipe": "paper", "settings": {"draws": 4}}
    list(run_plan(plan(), SOURCES, out=folder, request=request))
    with Scores(folder, SCREENING) as scores:
        for index, source in enumerate(SOURCES):
            scores.add(Score(index, source.name, str(index) * 64, None, 0.25 * index, 0.5), None)
    Design(4, 3, 1, (0, 1), (2,), "clean", 5, 12).save(folder)
    Calibration(0.625, 0.25, (0.75, 0.5, 0.25, 0.125), 0.375, plan().config, 0.875).save(folder / "calibration.json")
    return folder


def values(results: list[Result]) -> dict[str, Any]:
    return {
        result.name: (
            str(result.status),
            result.kl,
            result.similarity,
            {name: tensor.tolist() for name, tensor in result.noise.items()},
            {scale: images.tolist() for scale, images in (result.check.samples if result.check else {}).items()},
        )
        for result in results
    }


def looked_at(folder: Path) -> dict[str, Any]:
    """Everything that readers look at."""
    record = read(folder)
    found = find(folder)
    assert found.command
    assert found.public().headline
    for sentence in record.damaged():
        raise InvMMError(sentence)
    design, calibration = Design.load(folder), Calibration.load(folder / "calibration.json")
    parts: dict[str, Any] = {
        "config": record.config,
        "request": record.request,
        "design": design,
        "calibration": calibration,
    }
    screening, scores = read_scores(folder)
    parts |= {"screening": screening or SCREENING, **{str(index): score for index, score in scores.items()}}
    return {**values([record.result(row) for row in record.rows]), **parts}


def resumed(folder: Path) -> dict[str, Any]:
    with Scores(folder, SCREENING):
        pass
    return values(list(run_plan(plan(), SOURCES, out=folder)))


CONTENTS = st.none() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5) | st.booleans()


@st.composite
def damage(draw: st.DrawFn, content: bytes, others: list[bytes]) -> bytes:
    """Bytes flipped, cut, emptied, replaced, or of another file."""
    place = draw(st.integers(0, len(content) - 1))
    match draw(st.sampled_from(["flip", "cut", "noise", *(["swap"] if others else [])])):
        case "flip":
            flipped = content[place] ^ 1 << draw(st.integers(0, 7))
            return content[:place] + bytes([flipped]) + content[place + 1 :]
        case "cut":
            return content[:place]
        case "noise":
            return draw(st.binary(max_size=100))
    return draw(st.sampled_from(others))


@st.composite
def changed(draw: st.DrawFn, value: Any) -> Any:
    """A JSON value with one part missing or another."""
    if isinstance(value, dict) and value and draw(st.booleans()):
        key = draw(st.sampled_from(sorted(value)))
        if draw(st.booleans()):
            return {name: part for name, part in value.items() if name != key}
        return {**value, key: draw(changed(value[key]))}
    if isinstance(value, list) and value and draw(st.booleans()):
        place = draw(st.integers(0, len(value) - 1))
        return [*value[:place], draw(changed(value[place])), *value[place + 1 :]]
    return draw(CONTENTS | st.lists(CONTENTS, max_size=2) | st.dictionaries(st.text(max_size=3), CONTENTS, max_size=2))


@st.composite
def rewritten(draw: st.DrawFn, content: bytes) -> bytes:
    """JSON, or one of its lines, with another value."""
    lines = content.splitlines() if content.count(b"\n{") and content[:2] != b"{\n" else [content]
    number = draw(st.integers(0, len(lines) - 1))
    lines[number] = json.dumps(draw(changed(json.loads(lines[number])))).encode()
    return b"\n".join(lines) + b"\n"


@pytest.mark.parametrize("file", [*WRITTEN, *LINES, "tensors", "samples"])
def test_damage_ends_in_a_sentence_or_in_the_right_values(file: str, finished: Path) -> None:
    expected = looked_at(finished)
    paths = sorted(path for path in finished.rglob("*") if path.is_file() and file in path.relative_to(finished).parts)

    @settings(max_examples=8, deadline=None, derandomize=True, database=None)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        path = data.draw(st.sampled_from(paths))
        content = path.read_bytes()
        ways = damage(content, [other.read_bytes() for other in paths if other != path])
        harmed = data.draw(ways if len(paths) > 1 else ways | rewritten(content))
        for use in (looked_at, resumed):
            with tempfile.TemporaryDirectory() as place:
                folder = shutil.copytree(finished, Path(place) / "audit")
                (folder / path.relative_to(finished)).write_bytes(harmed)
                told = outcome(use, folder)
            if isinstance(told, str):
                assert path.name in told or str(folder) in told, told
                assert any(way in told for way in WAYS), told
            else:
                assert told == {name: expected[name] for name in told}

    check()


def outcome(use: Callable[[Path], dict[str, Any]], folder: Path) -> dict[str, Any] | str:
    try:
        return use(folder)
    except InvMMError as error:
        return str(error)


def test_a_flipped_digit_of_any_value_is_found(finished: Path, tmp_path: Path) -> None:
    for name in (*WRITTEN, *LINES):
        folder = shutil.copytree(finished, tmp_path / name)
        content = (folder / name).read_bytes()
        sealed = re.sub(rb'"(seconds_\w+|finished)":[^,]+', lambda match: b"-" * len(match[0]), content)
        digits = [place for place in range(len(content) - 20) if chr(sealed[place]).isdigit()]
        place = digits[len(digits) // 2]
        (folder / name).write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(InvMMError, match=name):
            looked_at(folder)


@pytest.mark.parametrize("file", ["tensors", "samples"])
def test_the_way_out_leads_out(file: str, finished: Path, tmp_path: Path) -> None:
    expected = resumed(shutil.copytree(finished, tmp_path / "as it was"))
    folder = shutil.copytree(finished, tmp_path / "audit")
    path = next(path for path in (folder / file).rglob("*") if path.is_file())
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(InvMMError, match=r"[Rr]emove it, and the same command measures its image again") as told:
        looked_at(folder)
    assert str(path) in str(told.value)
    path.unlink()
    assert resumed(folder) == expected
    looked_at(folder)


@pytest.mark.parametrize(
    ("file", "command"),
    [
        *((file, [command]) for file in ("whole.json", "tensors", "samples") for command in ("report", "verify")),
        *((file, ["card", "--pictures", "--model-card", "README.md"]) for file in ("whole.json", "samples")),
    ],
)
def test_what_cannot_be_read_is_named_in_one_sentence_which_does_not_say_that_writing_failed(
    file: str, command: list[str], finished: Path, tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = shutil.copytree(finished, tmp_path / "audit")
    write_manifest(folder)
    (folder / file).rename(tmp_path / "moved")
    (folder / file).symlink_to("x" * 300)  # as without permission, every look at it is an error, for root too
    code, _, err = invoke(command[0], folder, *command[1:])
    assert (code, "Traceback" in err, "written" in err) == (1, False, False), err
    assert str(folder / file) in err
    assert "cannot be read" in err
    assert "File name too long" in err
