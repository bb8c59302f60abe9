"""The results of an audit as a data set: a folder for ``datasets.load_dataset`` and the Hub."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features, Image
from huggingface_hub import DatasetCardData

from invmm_eval.errors import InvMMError, on_disk
from invmm_eval.reports.card import TEMPLATES, png, sheet
from invmm_eval.reports.croissant import metadata as describe
from invmm_eval.reports.findings import Findings
from invmm_eval.search.fields import columns

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
    table = findings.table()
    features = Features.from_arrow_schema(table.schema)
    if pictures:
        features |= {"pictures": Image()}
    title = f"Memorization audit of {findings.config['model']}"
    metadata = DatasetCardData(
        pretty_name=title,
        tags=["memorization", "invmm"],
        configs=[{"config_name": "default", "data_files": [{"split": "test", "path": "results.parquet"}]}],
    )
    described = {column.name: column.description for column in columns("dataset", findings.results, findings.describe)}
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
        files["README.md"].write_bytes(card.encode())
        files["config.json"].write_text(json.dumps(dict(findings.config), indent=2) + "\n", encoding="utf-8")
        files["distribution.png"].write_bytes(png(findings))
        with pq.ParquetWriter(files["results.parquet"], features.arrow_schema) as parquet:
            for start in range(0, findings.images, _ROWS):
                rows = table.slice(start, _ROWS).to_pylist()
                if pictures:
                    for row, result in zip(rows, findings.results[start : start + _ROWS], strict=True):
                        row["pictures"] = (
                            {"bytes": sheet(findings, result)} if findings.picture(result).is_file() else None
                        )
                parquet.write_table(pa.Table.from_pylist(rows, schema=features.arrow_schema))
        date = findings.written.date().isoformat() if findings.written else ""
        croissant = describe(title, findings.headline, date, files["results.parquet"], features.arrow_schema, described)
        files["croissant.json"].write_text(croissant, encoding="utf-8")
    return files
