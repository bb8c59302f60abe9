"""Audits of whole sets, of an exact model that has memorized some of the pictures."""

import json
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import invmm_eval
from invmm_eval.audits.folder import read
from invmm_eval.audits.options import SET_OPTIONS
from invmm_eval.audits.progress import Bar
from invmm_eval.audits.request import Request, command
from invmm_eval.audits.whole.audit import audited
from invmm_eval.audits.whole.found import WholeSet
from invmm_eval.cli.measure import status
from invmm_eval.errors import InvMMError
from invmm_eval.plugins.hooks import hookimpl
from invmm_eval.plugins.host import host
from invmm_eval.reports.findings import find
from invmm_eval.search.status import Verdict
from invmm_eval.statistics.finite import most_in
from tests.audits.test_folder import in_a_process
from tests.helpers.exact import Mixture, pictures, serving

PICTURES = pictures(14)
MEMORIZED = {2, 7, 11}
IMAGES = [*PICTURES[:5], PICTURES[3], *PICTURES[5:]]
"""Picture 3 is there twice, so that the pictures from 5 on stand one place later."""
PLACES = {2, 8, 12}
QUICK = {"draws": 2, "check_images": 2, "sampler_steps": 3, "responses": 4, "plain": 8, "threshold": 0.9}


class Known(Mixture):
    identity = "5" * 64

    def __init__(self) -> None:
        super().__init__(PICTURES[sorted(MEMORIZED)])
        self.fails_at: int | None = None
        self.killed = False

    def predict_x0(self, x_t: Any, t: Any, context: Any) -> Any:
        if self.fails_at is not None and len(self.rows_seen) >= self.fails_at:
            if self.killed:
                os.kill(os.getpid(), signal.SIGKILL)
            raise KeyboardInterrupt
        return super().predict_x0(x_t, t, context)


class Backwards:
    """Ranks what is restored well last."""

    name = "backwards"
    rows = 1
    settings: Mapping[str, Any] = {}

    def __call__(self, backbone: Any, x_0: Any, targets: Any, *, seed: int, micro_batch: int) -> Any:  # noqa: ARG002
        distances = (x_0[:, None] - backbone.points).flatten(2).square().sum(dim=2)
        return distances.min(dim=1).values


class Picky(Backwards):
    """Cannot score an image of one name."""

    name = "picky"

    def __call__(self, backbone: Any, x_0: Any, targets: Any, *, seed: int, micro_batch: int) -> Any:
        if any(target.name == "3" for target in targets):
            raise ZeroDivisionError("three")
        return super().__call__(backbone, x_0, targets, seed=seed, micro_batch=micro_batch)


class Detectors:
    @hookimpl
    def register_detectors(self) -> Mapping[str, Any]:
        return {"backwards": Backwards, "picky": Picky}


@pytest.fixture(autouse=True)
def model() -> Iterator[Known]:
    known = Known()
    with serving(lambda *_, **__: known):
        host().register(Detectors())
        yield known


def whole(out: Path, **options: Any) -> WholeSet:
    found = invmm_eval.audit_set(
        "any",
        IMAGES,
        out=out,
        **{"backbone": "exact", "similarity": "pixel-cosine", "settings": QUICK, "clean": 2, "control": 4, **options},
    )
    assert found is not None
    return found


def test_the_memorized_are_found_and_the_others_bounded(tmp_path: Path) -> None:
    found = whole(tmp_path)
    assert {result.index for result in found.found} == PLACES
    design = found.design
    assert (design.images, design.pictures, design.unreadable, design.end) == (15, 14, 0, "clean")
    assert set(design.suspects[:3]) == PLACES
    assert len(design.suspects) == 5
    assert (len(found.control), found.missed, found.others, found.not_searched) == (4, [], 9, 5)
    assert found.most_not_searched == most_in(9, 0, 4)
    assert found.rows == design.screen_rows + sum(result.rows or 0 for result in found.by_index.values())
    assert 0 < found.rows < (found.rows_of_all or 0)
    record = read(tmp_path)
    assert {row["index"] for row in record.rows} == {*design.suspects, *design.control}, "an ordinary audit"
    assert (record.progress.counts[Verdict.MEMORIZED], record.progress.waiting) == (3, 0)
    told = command(record.request)
    assert told.startswith("invmm-eval audit ")
    assert "--control 4" in told
    assert "--clean 2" in told


@pytest.mark.parametrize("at", [3, 60, 150])
def test_an_interrupted_audit_is_resumed_with_the_same_result(model: Known, tmp_path: Path, at: int) -> None:
    expected = whole(tmp_path / "whole")
    spent = sum(model.rows_seen)
    model.rows_seen.clear()
    model.fails_at = at
    with pytest.raises(KeyboardInterrupt):
        whole(tmp_path / "cut")
    model.fails_at = None
    found = whole(tmp_path / "cut")
    assert found.design == expected.design
    assert found.rows == expected.rows
    values = [{index: result.invmm for index, result in one.by_index.items()} for one in (found, expected)]
    assert values[0] == values[1]
    assert sum(model.rows_seen) < 2 * spent


def test_a_finished_audit_costs_nothing_again_and_may_be_extended(model: Known, tmp_path: Path) -> None:
    first = whole(tmp_path)
    model.rows_seen.clear()
    assert whole(tmp_path).design == first.design
    assert model.rows_seen == []
    more = whole(tmp_path, control=50)
    assert (more.not_searched, more.most_not_searched, more.missed) == (0, 0, [])
    assert set(more.by_index) >= set(first.by_index)


def test_a_screen_that_is_blind_shows_in_the_control_sample(tmp_path: Path) -> None:
    found = whole(tmp_path, detector="backwards", clean=1, control=13)
    assert {result.index for result in found.missed} == PLACES
    assert found.miss_rate == 3 / 13


def test_scores_are_not_served_for_other_settings(tmp_path: Path) -> None:
    whole(tmp_path)
    for options in ({"seed": 1}, {"detector": "pia"}, {"detector_options": {"draws": 2}}):
        with pytest.raises(InvMMError, match=r"holds a screening with another config: .* there and .* here"):
            whole(tmp_path, **options)
    with pytest.raises(InvMMError, match=r"holds an audit with another config: recipe\.max_steps"):
        whole(tmp_path, settings={**QUICK, "max_steps": 5})


def test_a_budget_in_rows_is_kept(tmp_path: Path) -> None:
    full = whole(tmp_path / "full", control=0, clean=14)
    budget = full.design.screen_rows + sum(full.by_index[index].rows or 0 for index in full.design.suspects[:4])
    found = whole(tmp_path / "part", control=0, clean=14, budget=budget)
    assert (found.design.end, found.design.suspects) == ("budget", full.design.suspects[:4])
    assert found.miss_rate is None
    assert found.most_not_searched == found.not_searched == 10


@pytest.mark.parametrize("options", [{"budget": 1}, {"clean": 1}])
def test_what_earlier_runs_searched_is_kept_with_a_smaller_budget(options: dict[str, Any], tmp_path: Path) -> None:
    first = whole(tmp_path)
    again = [whole(tmp_path, **options) for _ in range(2)]
    assert [one.design.suspects for one in again] == [first.design.suspects] * 2
    assert again[0].design.control == again[1].design.control == first.design.control


def test_an_audit_that_is_cut_keeps_its_suspects_with_a_smaller_budget(
    model: Known, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model.fails_at = 150
    with pytest.raises(KeyboardInterrupt):
        whole(tmp_path, batch_size=1)
    model.fails_at = None
    unfinished = find(tmp_path)
    assert unfinished.whole is None
    assert unfinished.headline.startswith("The image searched is memorized:")
    assert "The audit of this set is not complete" in " ".join(unfinished.paragraphs)
    status(tmp_path)
    assert "These are the images of the set that are certain to be searched" in capsys.readouterr().out
    found = whole(tmp_path, budget=1)
    assert found.design.end == "budget"
    assert len(found.design.suspects) == unfinished.images


def test_images_that_cannot_be_read_are_counted_and_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    request = Request.of(
        "any",
        [*IMAGES[:4], str(tmp_path / "bad.png")],
        names=SET_OPTIONS,
        backbone="exact",
        similarity="pixel-cosine",
        settings=QUICK,
        clean=2,
        control=1,
    )
    extents: list[int] = []
    monkeypatch.setattr(Bar, "resize", lambda _, images: extents.append(images))
    found = audited(request, tmp_path / "out")
    assert found is not None
    assert (found.design.images, found.design.pictures, found.design.unreadable) == (5, 4, 1)
    assert extents[-1] == len(found.by_index)
    assert json.loads((tmp_path / "out" / "whole.json").read_text())["unreadable"] == 1


@pytest.mark.parametrize("killed", [False, True])
def test_scores_do_not_depend_on_their_company_or_on_interruptions(killed: bool, model: Known, tmp_path: Path) -> None:
    options: dict[str, Any] = {"backbone": "exact"}
    first = invmm_eval.screen("any", IMAGES, **options)
    assert {score.index for score in first[:3]} == PLACES
    model.rows_seen.clear()
    model.fails_at, model.killed = 7, killed
    if killed:
        assert in_a_process(lambda: invmm_eval.screen("any", IMAGES, out=tmp_path, **options)) == -signal.SIGKILL
    else:
        with pytest.raises(KeyboardInterrupt):
            invmm_eval.screen("any", IMAGES, out=tmp_path, **options)
        model.rows_seen.clear()
    with (tmp_path / "screening.jsonl").open("ab") as file:
        file.write(b'{"index": 9, "na')
    model.fails_at = None
    again = invmm_eval.screen("any", IMAGES, out=tmp_path, **options)
    plain = [(score.index, score.name, score.score) for score in first]
    assert [(score.index, score.name, score.score) for score in again] == plain
    assert len(model.rows_seen) == 14 - 7, "each different picture is scored once"
    batched = invmm_eval.screen("any", IMAGES, micro_batch=9, **options)
    assert {score.index: score.score for score in batched} == pytest.approx({i: s for i, _, s in plain}, rel=1e-4)


@pytest.mark.parametrize(
    ("line", "damage", "sentence"),
    [
        (0, b"{}\n", r"Line 1 of .* is damaged; remove the file"),
        (0, b'{"format": 9, "config": {}}\n', r"has format 9; this version reads 1"),
        (2, b"\x00\x00\n", r"Line 3 of .* is damaged; remove it to score its image again"),
        (2, b'{"index": 1}\n', r"Line 3 of .* is damaged"),
        (2, b'{"index": "1", "name": "a", "digest": "", "score": "high"}\n', r"Line 3 of .* is damaged"),
    ],
)
def test_damaged_scores_are_named(tmp_path: Path, line: int, damage: bytes, sentence: str) -> None:
    invmm_eval.screen("any", IMAGES, out=tmp_path, backbone="exact")
    path = tmp_path / "screening.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[line] = damage
    path.write_bytes(b"".join(lines))
    with pytest.raises(InvMMError, match=sentence):
        invmm_eval.screen("any", IMAGES, out=tmp_path, backbone="exact")


def test_a_detector_that_fails_fails_its_image_alone() -> None:
    scores = invmm_eval.screen("any", IMAGES, backbone="exact", detector="picky", micro_batch=4)
    failed = {score.index: score.error for score in scores if score.error}
    assert failed == dict.fromkeys((3, 5), "ZeroDivisionError: three")
