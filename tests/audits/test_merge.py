"""Shards that are merged: the folder of one run, and no other."""

import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import invmm_eval
from invmm_eval.audits.folder import read
from invmm_eval.audits.folder.files import read_object, write_object
from invmm_eval.audits.folder.manifest import verify
from invmm_eval.audits.images import Source, find_images
from invmm_eval.audits.merge import merge
from invmm_eval.audits.options import Output, Resources
from invmm_eval.audits.plan import Plan
from invmm_eval.errors import InvMMError
from tests.audits.test_folder import in_a_process
from tests.helpers.audits import planned, run_plan, streamed
from tests.helpers.exact import Mixture, pictures

PICTURES = torch.cat([pictures(4), pictures(4, seed=99)])
SOURCES = [
    *(Source(f"{index}.png", picture) for index, picture in enumerate(PICTURES)),
    Source("8.png", b"no image"),
    Source("9.png", PICTURES[2]),
]
TIMES = ("seconds_steps", "seconds_checks", "finished", "sha256")
SETTINGS: dict[str, Any] = {"max_steps": 2, "check_every": 1, "draws": 2, "check_images": 2, "sampler_steps": 2}


class Known(Mixture):
    identity = "5" * 64


def plan(**choices: Any) -> Plan:
    return planned(
        Known(PICTURES[:4]), **{"similarity": "pixel-cosine", "recipe": "demo", "settings": SETTINGS, **choices}
    )


def written(folder: Path, sources: Sequence[Source], shard: str | None = None, **choices: Any) -> Path:
    for _ in run_plan(plan(**choices), sources, Resources(), out=folder, output=Output(shard=shard)):
        pass
    return folder


def shards(tmp_path: Path, of: int, sources: Sequence[Source] = SOURCES) -> list[Path]:
    return [written(tmp_path / f"shard-{k}", sources, f"{k}/{of}") for k in range(1, of + 1)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("whole") / "audit", SOURCES)


def rows(folder: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key not in TIMES} for row in read(folder).rows]


def test_merged_shards_are_one_run_row_for_row_and_file_for_file(whole: Path, tmp_path: Path) -> None:
    """Though the shards read their images from a stream."""
    read_twice = find_images(streamed(source.value for source in SOURCES))
    named = [replace(found, name=source.name) for found, source in zip(read_twice, SOURCES, strict=True)]
    parts = shards(tmp_path, 3, named)
    merged = tmp_path / "merged"
    assert merge(merged, parts).names == [source.name for source in SOURCES]
    assert rows(merged) == rows(whole)
    assert read(merged).progress.waiting == read(merged).progress.failed - 1 == 0
    assert verify(merged) == []

    def files(folder: Path) -> list[Path]:
        return sorted(
            path.relative_to(folder) for path in folder.rglob("*.*") if path.suffix in (".png", ".safetensors")
        )

    assert files(merged) == files(whole)
    assert all(
        any((part / file).exists() and (part / file).samefile(merged / file) for part in parts)
        for file in files(merged)
    )
    before = (merged / "results.jsonl").read_bytes().count(b"\n")
    written(merged, SOURCES)
    assert (merged / "results.jsonl").read_bytes().count(b"\n") == before + 1, "only what failed is measured again"


def test_shards_that_list_the_images_in_other_orders_give_the_rows_in_the_order_of_their_names(
    whole: Path, tmp_path: Path
) -> None:
    parts = [written(tmp_path / "1", SOURCES, "1/2"), written(tmp_path / "2", SOURCES[::-1], "2/2")]
    merge(tmp_path / "merged", parts)
    assert rows(tmp_path / "merged") == rows(whole)


@pytest.mark.parametrize(("owner", "step", "calls"), [(os, "link", 3), (Path, "replace", 1), (Path, "replace", 4)])
def test_a_merge_that_is_killed_leaves_nothing_that_could_be_taken_for_its_end(
    owner: Any, step: str, calls: int, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts, merged = shards(tmp_path, 2), tmp_path / "merged"
    done, left = getattr(owner, step), iter(range(calls - 1))

    def deadly(*arguments: Any) -> Any:
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return done(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(owner, step, deadly)
        assert in_a_process(lambda: merge(merged, parts)) == -signal.SIGKILL
    assert not merged.exists()
    [remains] = tmp_path.glob("merged.partial-*")
    with pytest.raises(InvMMError, match="holds no audit"):
        read(remains)
    merge(merged, parts)
    assert rows(merged) == rows(whole)


def test_more_shards_than_pictures_are_merged(tmp_path: Path) -> None:
    merge(tmp_path / "merged", shards(tmp_path, 5, SOURCES[:2]))
    assert [row["name"] for row in read(tmp_path / "merged").rows] == ["0.png", "1.png"]


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ({"shard": "1/2"}, r"both hold shard 1/2; give one of them\.$"),
        ({"seed": 1}, r"cannot be merged: seed is 0 there and 1 here\.$"),
        ({"settings": {**SETTINGS, "draws": 5}}, r"cannot be merged: recipe.draws is 2 there and 5 here\.$"),
        ({"sources": SOURCES[:3]}, r"are not shards of the same images, cut into the same number of shards\.$"),
        ({"shard": "3/3"}, r"are not shards of the same images, cut into the same number of shards\.$"),
        ({"shard": None}, r"other holds no shard; give the folders of commands with --shard\.$"),
    ],
)
def test_what_does_not_belong_together_is_one_sentence(tmp_path: Path, other: dict[str, Any], sentence: str) -> None:
    one = written(tmp_path / "one", SOURCES[:2], "1/2")
    two = written(tmp_path / "other", **{"sources": SOURCES[:2], "shard": "2/2", **other})
    with pytest.raises(InvMMError, match=sentence):
        merge(tmp_path / "merged", [one, two])
    assert not (tmp_path / "merged").exists()


def test_a_missing_shard_an_incomplete_one_and_a_folder_in_use_are_one_sentence(tmp_path: Path) -> None:
    one, two = shards(tmp_path, 2, SOURCES[:4])
    with pytest.raises(InvMMError, match=r"Shards are missing: 2/2; give the folders of all 2\.$"):
        merge(tmp_path / "merged", [one])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(InvMMError, match="full is not empty; choose another folder for the merged one"):
        merge(tmp_path / "full", [one, two])
    asked = read_object(two / "images.json")
    (two / "results.jsonl").write_bytes(b"".join((two / "results.jsonl").read_bytes().splitlines(True)[2:]))
    with pytest.raises(InvMMError, match="shard-2 is not complete; let its command end, or run it again"):
        merge(tmp_path / "merged", [one, two])
    del asked["indices"]
    write_object(two / "images.json", {**asked, "names": [source.name for source in SOURCES[:4]]})
    assert read(two).progress.images == 2, "about half of them, until all are read"
    with pytest.raises(InvMMError, match="shard-2 is not complete"):
        merge(tmp_path / "merged", [one, two])
    with pytest.raises(InvMMError, match="nowhere holds no shard"):
        merge(tmp_path / "merged", [tmp_path / "nowhere"])


def test_scores_of_shards_are_merged_and_the_set_audited_from_there(tmp_path: Path, tiny_folder: Path) -> None:
    quick = {"draws": 2, "check_images": 2, "sampler_steps": 2, "responses": 4, "plain": 8}
    options: dict[str, Any] = {"clean": 1, "control": 1, "similarity": "pixel-cosine", "settings": quick}
    images = streamed(pictures(5, (3, 8, 8)))
    whole = invmm_eval.audit_set(str(tiny_folder), images, out=tmp_path / "whole", **options)
    parts = [tmp_path / f"shard-{k}" for k in (1, 2)]
    for k, part in enumerate(parts, 1):
        assert invmm_eval.audit_set(str(tiny_folder), images, out=part, shard=f"{k}/2", **options) is None
        assert not (part / "results.jsonl").exists(), "a shard alone does not know whom to search"
    merge(tmp_path / "merged", parts)
    ranking = (tmp_path / "merged" / "screening.csv").read_text().splitlines()
    assert ranking[0] == '"name","index","score","digest","error"'
    assert sorted(line.split(",")[0] for line in ranking[1:]) == [f'"dataset#{index}"' for index in range(5)]
    scores = (tmp_path / "merged" / "screening.jsonl").read_bytes()
    found = invmm_eval.audit_set(str(tiny_folder), images, out=tmp_path / "merged", **options)
    assert (tmp_path / "merged" / "screening.jsonl").read_bytes() == scores, "no picture is scored again"
    assert found
    assert whole
    assert found.design == whole.design
    assert rows(tmp_path / "merged") == rows(tmp_path / "whole")
