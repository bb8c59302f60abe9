"""The Croissant metadata of a data set, validated and read by the reference implementation."""

import io
import itertools
import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import mlcroissant
import numpy as np
import pytest
from PIL import Image

from invmm_eval.reports.dataset import write_dataset
from invmm_eval.reports.findings import Findings
from invmm_eval.search.fields import columns


def test_mlcroissant_accepts_it_and_reads_what_was_found(found: Findings, tmp_path: Path) -> None:
    files = write_dataset(found.public(), tmp_path, pictures=True)
    described = mlcroissant.Dataset(jsonld=files["croissant.json"])
    metadata = described.metadata
    assert metadata.name == "Memorization audit of org/painter@v1.0"
    assert metadata.description == found.headline
    [table] = metadata.distribution
    assert table.sha256 == sha256(files["results.parquet"].read_bytes()).hexdigest()
    [records] = metadata.record_sets
    meant = {column.name: column.description for column in columns("dataset", found.results, found.describe)}
    assert {field.name: field.description for field in records.fields}.items() >= meant.items()
    rows = itertools.islice(described.records("results"), found.images)
    for read, row, result in zip(rows, found.public().table().to_pylist(), found.results, strict=True):
        for name, value in row.items():
            assert told(read, name) == (pytest.approx(value) if isinstance(value, float) else value), name
        if result.check:
            picture = read["results/pictures"]
            picture = Image.open(io.BytesIO(picture)) if isinstance(picture, bytes) else picture
            with Image.open(found.picture(result)) as expected:
                assert np.array_equal(np.asarray(picture), np.asarray(expected))


def told(read: Mapping[str, Any], name: str) -> Any:
    """A value as Python has it: mlcroissant gives bytes for text, and NaN or None for what is missing."""
    value = read[f"results/{name}"]
    if isinstance(value, bytes):
        return value.decode()
    return None if value is None or value != value else value


def test_it_says_nothing_that_the_hub_knows_better(found: Findings, tmp_path: Path) -> None:
    """The address and the licence are those of the repository, which is not known when this is written."""
    described = json.loads(write_dataset(found.public(), tmp_path)["croissant.json"].read_text("utf-8"))
    assert not described.keys() & {"url", "license", "creator"}
