"""Whatever happens to a file of an audit's folder, values are right, or one sentence names the file and the way out."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from invmm_eval.audits.folder import read
from invmm_eval.audits.images import Source
from invmm_eval.audits.plan import Plan
from invmm_eval.errors import InvMMError
from invmm_eval.reports.findings import find
from invmm_eval.search.result import Result
from tests.helpers.audits import planned
from tests.helpers.exact import Mixture, pictures

PICTURES = torch.cat([pictures(2), pictures(1, seed=99)])
SOURCES = [*(Source(f"picture {index}", picture) for index, picture in enumerate(PICTURES)), Source("none", b"")]
FILES = ("config.json", "images.json", "request.json", "results.jsonl", "tensors", "samples")
WAYS = ("remove it", "Remove it", "choose another folder", "Choose another folder", "Upgrade")


def plan() -> Plan:
    settings = {"max_steps": 10, "check_every": 5, "draws": 4, "check_images": 2, "sampler_steps": 4}
    return planned(Mixture(PICTURES[:2]), similarity="pixel-cosine", settings=settings)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audit") / "audit"
    request = {"model": "exact", "images": ["a"], "captions": None, "recipe": "paper", "settings": {"draws": 4}}
    list(plan().run(SOURCES, out=folder, request=request))
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
    return values([record.result(row) for row in record.rows])


def resumed(folder: Path) -> dict[str, Any]:
    return values(list(plan().run(SOURCES, out=folder)))


def damage(folder: Path, file: str, chance: random.Random) -> Path:
    """Damage one file at random: flip a byte, cut it, empty it, swap it with another, or change its JSON."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and file in path.relative_to(folder).parts)
    path = chance.choice(paths)
    content = path.read_bytes()
    kinds = ["flip", "cut", "empty", "noise", *(["swap"] if len(paths) > 1 else ["json"] * 4)]
    match chance.choice(kinds):
        case "flip":
            place = chance.randrange(len(content))
            content = content[:place] + bytes([content[place] ^ 1 << chance.randrange(8)]) + content[place + 1 :]
        case "cut":
            content = content[: chance.randrange(len(content))]
        case "empty":
            content = b""
        case "noise":
            content = chance.randbytes(chance.randrange(1, 200))
        case "swap":
            content = chance.choice([other for other in paths if other != path]).read_bytes()
        case "json":
            lines = content.splitlines() if file == "results.jsonl" else [content]
            number = chance.randrange(len(lines))
            lines[number] = json.dumps(changed(json.loads(lines[number]), chance)).encode()
            content = b"\n".join(lines) + b"\n"
    path.write_bytes(content)
    return path


def changed(value: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """A JSON object with a key missing, or with a value of another type."""
    key = chance.choice(list(value))
    if isinstance(value[key], dict) and value[key] and chance.random() < 0.5:
        return {**value, key: changed(value[key], chance)}
    if chance.random() < 0.3:
        return {name: part for name, part in value.items() if name != key}
    return {**value, key: chance.choice([None, 7, -1.5, "text", [], ["text"], {}, {"a": 1}, True])}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("file", FILES)
def test_damage_ends_in_a_sentence_or_in_the_right_values(file: str, seed: int, finished: Path, tmp_path: Path) -> None:
    expected = looked_at(finished)
    chance = random.Random(f"{file} {seed}")
    for number in range(4):
        folder = shutil.copytree(finished, tmp_path / str(number))
        path = damage(folder, file, chance)
        for use in (looked_at, resumed):
            told = outcome(use, folder)
            if isinstance(told, str):
                assert path.name in told or folder.name in told, told
                assert any(way in told for way in WAYS), told
            else:
                assert {name: told[name] for name in told} == {name: expected[name] for name in told}


def outcome(use: Callable[[Path], dict[str, Any]], folder: Path) -> dict[str, Any] | str:
    try:
        return use(folder)
    except InvMMError as error:
        return str(error)


@pytest.mark.parametrize("file", ["tensors", "samples"])
def test_the_way_out_leads_out(file: str, finished: Path, tmp_path: Path) -> None:
    expected = looked_at(finished)
    folder = shutil.copytree(finished, tmp_path / "audit")
    path = next(path for path in (folder / file).rglob("*") if path.is_file())
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(InvMMError, match=r"[Rr]emove it, and the same command measures its image again") as told:
        looked_at(folder)
    assert str(path) in str(told.value)
    path.unlink()
    assert resumed(folder) == looked_at(folder) == expected
