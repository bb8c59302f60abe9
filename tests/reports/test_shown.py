"""An image beside its samples, and which part of it they copy: on a model that has memorized a template."""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from invmm_eval.audits.folder.scores import Score
from invmm_eval.reports import report
from invmm_eval.reports.answer.words import Answer
from invmm_eval.reports.findings import Findings, find
from invmm_eval.reports.shown import CopiedPart, Shown
from invmm_eval.search.result import Check, Status
from invmm_eval.search.target import Target
from tests.helpers import audits, exact
from tests.reports.pages import data_of

SIDE = 16


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Findings, Target]:
    """An exact model of pictures with one left half, searched for a picture of this half and a right one of its own."""
    blocks = exact.pictures(9, (3, 8, 8)).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    blocks[..., : SIDE // 2] = blocks[0, ..., : SIDE // 2]
    plan = audits.planned(exact.Mixture(blocks[1:]), similarity="pixel-cosine", settings={"plain": 0, "max_steps": 1})
    target = Target(blocks[0], "half.png")
    [result] = plan.measure([target])
    folder = tmp_path_factory.mktemp("template")
    return find(audits.write(folder, [(result, target)], dict(plan.config))), target


def found_in(findings: Findings) -> tuple[CopiedPart, NDArray[Any]]:
    """What is found for the one picture of an audit, and the picture under the veil."""
    shown = Shown.of(findings, findings.results[0])
    assert shown
    assert shown.copied
    return shown.copied, np.asarray(shown.copied.over(shown.image))


def test_the_part_that_is_copied_is_found_although_no_sample_is_a_copy(template: tuple[Findings, Target]) -> None:
    findings, target = template
    found, shown = found_in(findings)
    assert not found.are_copies
    assert found.part == pytest.approx(0.5, abs=0.2)
    assert re.match(r"Most of the \d samples shown match \d+ % of the image", found.sentence)
    picture = target.image.permute(1, 2, 0).numpy()
    clear, coloured = (shown == picture).all(axis=2), picture.min(axis=2) < 255
    left, right = (clear[:, half][coloured[:, half]] for half in (slice(0, SIDE // 2), slice(SIDE // 2, SIDE)))
    assert left.mean() > 0.5, "the others have no contrast"
    assert not right.any()


def test_the_report_and_the_answer_say_it(template: tuple[Findings, Target]) -> None:
    findings, _ = template
    found, _ = found_in(findings)
    picture, sentence = data_of(report(findings.record.folder).read_text("utf-8"))["image-0"]["copied"]
    assert picture.startswith("data:image/png;base64,")
    assert sentence == found.sentence
    assert found.sentence in Answer(findings, Score(0, "half.png", "", score=0.1)).paragraphs


def test_where_some_samples_are_copies_these_are_compared(tmp_path: Path) -> None:
    result, _ = audits.result(0, Status.REPLICATED, 0.02)
    target = Target(exact.pictures(1, (3, audits.SIDE, audits.SIDE))[0], result.name)
    samples = torch.stack([target.image, 255 - target.image, target.image // 3])
    check = Check(True, {1.0: (0.9, 0.1, 0.2)}, {1.0: samples})
    findings = find(audits.write(tmp_path, [(replace(result, check=check, digest=target.digest), target)]))
    found, shown = found_in(findings)
    assert (found.samples, found.are_copies, found.part) == (1, True, 1)
    assert found.sentence == "The copy shown matches all of the image's area that has contrast."
    assert (shown == target.image.permute(1, 2, 0).numpy()).all()


def test_of_an_image_without_contrast_nothing_is_said(found: Findings) -> None:
    shown = Shown.of(found, found.results[0])
    assert shown
    assert shown.copied is None


def test_samples_are_those_of_the_sheet_with_their_similarities(found: Findings) -> None:
    first = found.results[0]
    shown = Shown.of(found, first)
    assert first.check
    assert shown
    assert {scale: tuple(sample.similarity for sample in row) for scale, row in shown.rows.items()} == (
        first.check.similarities
    )
    picture = audits.picture(first.index).permute(1, 2, 0).numpy()
    assert (np.asarray(shown.image) == picture).all()
    copies = [sample.is_copy for sample in shown.samples]
    assert copies == [True] * 8
    assert [[tile is None for tile in row] for row in shown.tiles] == [[False] * 3, [True] + 8 * [False], [True, False]]
    for row in shown.rows.values():
        for sample in row:
            assert (np.asarray(sample.image) == picture // (1 if sample.is_copy else 2)).all()


@pytest.mark.parametrize("lost", ["samples", "tensors"])
def test_without_all_of_its_files_an_image_has_no_picture(lost: str, tmp_path: Path) -> None:
    folder = audits.write(tmp_path, [audits.result(0, Status.REPLICATED, 0.02)])
    shutil.rmtree(folder / lost)
    findings = find(folder)
    assert Shown.of(findings, findings.results[0]) is None
    assert data_of(report(folder).read_text("utf-8"))["image-0"]["picture"] is None
