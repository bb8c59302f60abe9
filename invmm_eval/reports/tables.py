"""The table of an audit as a file, written in parts, so that a million rows need little more memory than a thousand."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pyarrow as pa

from invmm_eval.reports.findings import Findings


def write_table(findings: Findings, path: Path, *, writer: Callable[..., AbstractContextManager[Any]]) -> None:
    """Write one row per image, the most memorized first, with the columns of the face ``dataset``.

    Args:
        findings: The audit.
        path: Output file.
        writer: Opens the file for tables of a schema, as :class:`pyarrow.csv.CSVWriter` does.

    Raises:
        OSError: The file cannot be written.
    """
    schema = pa.schema([(field.name, field.type) for field in findings.columns])
    with path.open("wb") as out, writer(out, schema) as file:
        for _, part in findings.parts():
            file.write_table(part)
