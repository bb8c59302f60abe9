"""The results of an audit as a data set: a folder for ``datasets.load_dataset`` and the Hub."""

import json
from functools import partial
from operator import methodcaller
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features, Image
from huggingface_hub import DatasetCardData

from invmm_eval.audits.folder.files import write_atomically
from invmm_eval.errors import InvMMError, on_disk
from invmm_eval.reports.card import TEMPLATES, png, sheet
from invmm_eval.reports.croissant import metadata as describe
from invmm_eval.reports.findings import Findings

PICTURES = {"pictures": "the image, then its samples, one row of samples per guidance scale"}
_ROWS = 64
"""Number of rows per write, as pictures may be large."""


def write_dataset(findings: Findings, folder: Path, *, pictures: bool = False) -> dict[str, Path]:
    """Write the data set.

    Args:
        findings: The audit, as :meth:`Findings.public` returns it.
        folder: Output folder, created if needed.
        pictures: Whether to include each image with its samples.

    Returns:
        The files, by path in the data set.

    Raises:
        InvMMError: There are no results, or a file cannot be read or written.
    """
    if not findings.images:
        raise InvMMError("This audit has no results yet, so there is nothing to publish.")
    features = Features.from_arrow_schema(pa.schema([(column.name, column.type) for column in findings.columns]))
    if pictures:
        features |= {"pictures": Image()}
    title = f"Memorization audit of {findings.model}"
    metadata = DatasetCardData(
        pretty_name=title,
        tags=["memorization", "invmm"],
        configs=[{"config_name": "default", "data_files": [{"split": "test", "path": "results.parquet"}]}],
    )
    described = {column.name: column.description for column in findings.columns}
    described |= PICTURES if pictures else {}
    card = TEMPLATES.get_template("dataset.md").render(
        columns=described,
        figure="distribution.png",
        findings=findings,
        metadata=metadata,
    )
    names = ("README.md", "results.parquet", "config.json", "distribution.png", "croissant.json")
    files = {name: folder / name for name in names}
    with on_disk(f"The data set cannot be written to {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(files["results.parquet"], partial(_write_rows, findings, features.arrow_schema))
        date = findings.written.date().isoformat() if findings.written else ""
        croissant = describe(title, findings.headline, date, files["results.parquet"], features.arrow_schema, described)
        contents = {
            "README.md": card.encode(),
            "config.json": json.dumps(dict(findings.config), indent=2).encode() + b"\n",
            "distribution.png": png(findings),
            "croissant.json": croissant.encode(),
        }
        for name, content in contents.items():
            write_atomically(files[name], methodcaller("write_bytes", content))
    return files


def _write_rows(findings: Findings, schema: pa.Schema, path: Path) -> None:
    with pq.ParquetWriter(path, schema) as parquet:
        for results, part in findings.parts(_ROWS):
            rows = part.to_pylist()
            if "pictures" in schema.names:
                for row, result in zip(rows, results, strict=True):
                    row["pictures"] = {"bytes": sheet(findings, result)} if findings.picture(result).is_file() else None
            parquet.write_table(pa.Table.from_pylist(rows, schema=schema))
