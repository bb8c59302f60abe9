"""The evidence suite: its parts against independent references, and all of it in small, from training to page."""

import io
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.common.data import assign, different
from benchmarks.common.keep import kept
from benchmarks.common.measures import auc, factor, recall, tpr
from benchmarks.common.plain_samples import similarities
from benchmarks.evidence import data, models
from benchmarks.evidence.__main__ import CLAIMS, gathered
from benchmarks.evidence.audits import FAST, PUBLISHED
from benchmarks.evidence.case import Budget
from benchmarks.evidence.claim import Claim, Finding
from benchmarks.evidence.claims.peers import Performance
from benchmarks.evidence.claims.whole_set import simulated
from benchmarks.evidence.data import DOSES, Source, digits, photograph_source, png_size
from benchmarks.evidence.models import Training
from benchmarks.evidence.page import render, write
from benchmarks.evidence.truth import threshold_of
from invmm_eval.similarity.pixel_cosine import PixelCosine
from tests.helpers.exact import Mixture, pictures

DOCS = Path(__file__).parents[2] / "docs" / "lab"
TINY = Training((16, 32), 250, samples=512, seeds=2)
SHORTER = {"max_steps": 20, "draws": 4, "check_images": 4, "sampler_steps": 10}
BUDGET = Budget(
    {"some digits": TINY},
    (FAST, PUBLISHED.changed(**SHORTER)),
    per_dose=1,
    others=2,
    attack=64,
    exact=1,
    audits=20,
)


def every_other_digit() -> NDArray[np.float32]:
    return digits()[::2]


def test_chosen_images_differ_and_every_other_one_is_like_a_chosen_one() -> None:
    images = digits()[:300]
    chosen = different(images, 0.7)
    alike = np.atleast_2d(np.corrcoef(images.reshape(len(images), -1)))
    assert (alike[np.ix_(chosen, chosen)] - np.eye(len(chosen)) < 0.7).all()
    assert (alike[:, chosen].max(axis=1) > 0.7 - 1e-6).all()


def test_each_dose_gets_as_many_images_as_any_other() -> None:
    copies = assign(100, DOSES, 3, 20, seed=0)
    assert {dose: int((copies == dose).sum()) for dose in (*DOSES, 1, 0)} == dict.fromkeys(DOSES, 3) | {1: 56, 0: 20}


@pytest.mark.parametrize("column", ["image", "img"])
def test_photographs_are_followed_by_held_out_ones_of_like_complexity(
    column: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    files = []
    for index in range(1400):
        side = (4, 8, 16, 32)[index % 4]  # coarse ones are small files
        pixels = np.kron(random.integers(0, 256, (side, side, 3)), np.ones((32 // side, 32 // side, 1))).astype(
            np.uint8
        )
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        files.append(file.getvalue())
    table = pa.table({column: [{"bytes": file, "path": None} for file in files]})
    pq.write_table(table, tmp_path / "pictures.parquet")
    monkeypatch.setitem(data.SOURCES, "photographs", photograph_source(tmp_path / "pictures.parquet"))
    for _ in ("made", "read again"):
        found = data.load(tmp_path, "photographs")
        assert (len(found.images), found.matched) == (1200 + 96, 96)
        assert not found.copies[-96:].any()
    sizes = found.sizes()
    assert sizes[0] == png_size(found.images[0])
    assert np.sort(sizes[found.copies > 1]).repeat(4) == pytest.approx(np.sort(sizes[-96:]), rel=0.15)
    rebuilt = np.stack([np.asarray(Image.open(io.BytesIO(file))) for file in files])
    lowered = 128 + 0.9 * (rebuilt.transpose(0, 3, 1, 2).astype(float) - 127.5)
    assert abs(found.images[:1200].numpy() - lowered[:1200]).max() <= 0.51
    used = {image.numpy().tobytes() for image in found.images[:1200]}
    assert not any(image.numpy().tobytes() in used for image in found.images[1200:])


@pytest.mark.parametrize(("reached", "threshold"), [(0.5, 0.9), (0.9, 0.91), (0.934, 0.94), (0.999, 0.99)])
def test_the_threshold_is_above_what_held_out_images_reached(reached: float, threshold: float) -> None:
    assert threshold_of(reached) == threshold


def test_plain_samples_find_what_a_mixture_holds(cosine: PixelCosine) -> None:
    images = pictures(3)
    model = Mixture(images[:2], torch.tensor([0.9, 0.1]))
    alike = similarities(model, images, cosine, samples=1000, steps=10, sampler="dpm-solver++")
    assert alike.shape == (1000, 3)
    assert (alike >= 0.99).float().mean(dim=0).tolist() == pytest.approx([0.9, 0.1, 0], abs=0.05)


def test_a_finding_is_computed_once_for_a_request(tmp_path: Path) -> None:
    numbers: Iterator[int] = iter(range(10))
    path = tmp_path / "a" / "b.json"
    found = [kept(path, {"seed": seed}, lambda: [next(numbers)]) for seed in (1, 1, 2, 2, 1)]
    assert found == [[0], [0], [1], [1], [2]]


def test_measures_of_scores() -> None:
    labels = [1, 1, 0, 0]
    assert auc([3, 1, 2, -np.inf], labels) == 0.75
    assert tpr([3, 1, 2, -np.inf], labels) == 0.5
    assert math.isnan(auc([1, 2], [1, 1]))
    assert factor([2, 1 / 2]) == pytest.approx(2)
    assert factor([1, 0]) == math.inf


def test_recall_is_that_of_the_first_twentieth_or_of_as_many_as_are_labelled() -> None:
    scores = np.arange(100)[::-1]
    assert recall(scores, scores > 97) == 1
    assert recall(scores, (scores == 99) | (scores == 10)) == 0.5
    assert recall(scores, scores < 20) == 0
    assert recall(scores, scores > 80) == 1
    assert recall(np.zeros(100), scores == 99) <= 1


def test_a_way_beats_another_only_by_finding_more_for_less() -> None:
    found = [Performance(1, recall, 0, rows) for recall, rows in ((0.9, 400), (1, 16), (0.9, 16), (1, 400))]
    assert [one.beats(found[0]) for one in found] == [False, True, False, False]


def test_simulated_audits_keep_their_limit_even_in_random_order_and_a_perfect_screen_misses_nothing() -> None:
    memorized = np.arange(1000) < 30
    missed, limits = simulated(None, memorized, 400)
    assert (missed <= limits).mean() >= 0.93
    assert missed.max() > 0
    missed, limits = simulated(memorized.astype(np.float64), memorized, 50)
    assert missed.mean() < 0.1
    assert (missed <= limits).all()


def test_a_claim_holds_if_all_targets_were_reached() -> None:
    yes, no, reported = Finding("a", "1", "1", True), Finding("b", "2", "1", False), Finding("c", "3")
    held = [Claim("n", "t", "m", findings).held for findings in ((yes, reported), (yes, no, reported), (reported,))]
    assert held == [True, False, None]


def test_the_page_is_rendered_from_the_facts() -> None:
    facts = json.loads((DOCS / "evidence" / "evidence.json").read_text())
    assert (DOCS / "evidence.md").read_text() == render(facts)


def test_the_whole_suite_in_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (name,) = BUDGET.trainings
    monkeypatch.setitem(data.SOURCES, name, Source(every_other_digit, 0.7, 8))
    runs, docs = tmp_path / "runs", tmp_path / "docs"
    facts = gathered(runs, docs, BUDGET)
    assert facts["sets"][0]["memorized"] > 0
    figures = {finding["what"]: finding["held"] for claim in facts["claims"] for finding in claim["findings"]}
    assert figures[f"{name}: ways that find more for less"] in (True, False)
    page = write(facts, docs)
    assert page.read_text().count("\n## ") == len(CLAIMS) + 2
    linked = re.findall(r"\]\((.*\.png)\)", page.read_text())
    assert {docs / link for link in linked} == set((docs / "evidence").glob("*.png"))

    monkeypatch.setattr(models, "network", None)
    made = {path: path.stat().st_mtime_ns for path in runs.rglob("*")}
    assert gathered(runs, docs, BUDGET) == facts
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("*")} == made
