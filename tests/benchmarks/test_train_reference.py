"""The script that trains the reference model: its training sets, and the card that ships with the model."""

import json

import datasets
import numpy as np

from benchmarks.common.data import assign, different
from benchmarks.train_reference import card
from invmm_eval.reference import MODEL

REFERENCE = MODEL.parent


def test_the_card_of_the_shipped_model_states_its_counts() -> None:
    truth = json.loads((REFERENCE / "truth.json").read_text())
    table = datasets.Dataset.from_parquet(str(REFERENCE / "images.parquet"), keep_in_memory=True)
    assert card(table, truth["copies_drawn"], truth["samples"]) == (REFERENCE / "README.md").read_text("utf-8")


def test_shipped_pictures_differ() -> None:
    table = datasets.Dataset.from_parquet(str(REFERENCE / "images.parquet"), keep_in_memory=True)
    images = np.stack([np.asarray(image) for image in table["image"]])
    assert np.triu(np.corrcoef(images.reshape(len(images), -1).astype(float)), 1).max() < 0.5
    assert different(images, 0.5) == list(range(len(images)))


def test_numbers_of_copies_depend_on_the_seed_alone() -> None:
    first, again, other = (assign(50, (8, 4), 3, 5, seed) for seed in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()
    assert sorted(first) == [0] * 5 + [1] * 39 + [4] * 3 + [8] * 3
