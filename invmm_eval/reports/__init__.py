"""The report of an audit: one self-contained HTML file, or its figure or table alone."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pyarrow.csv
import pyarrow.parquet

from invmm_eval.audits.folder.files import folder_named, write_to
from invmm_eval.errors import InvMMError, on_disk
from invmm_eval.reports.figures import distribution, save
from invmm_eval.reports.findings import Findings, find
from invmm_eval.reports.html.page import write_page
from invmm_eval.reports.tables import write_table


def report(folder: str | Path, out: str | Path | None = None, format: str = "html") -> Path:  # noqa: A002
    """Write the report of an audit, which may still be running.

    Args:
        folder: Folder of the audit.
        out: Output file; None takes ``report.FORMAT`` in the folder.
        format: ``html`` is the whole report, ``png`` and ``svg`` its figure, the distribution of plain samples per copy
            or of InvMM, ``csv`` and ``parquet`` the table.

    Returns:
        The output file.

    Raises:
        InvMMError: The folder holds no audit or is no path, the format is unknown, or the file cannot be written.
    """
    if format not in FORMATS:
        raise InvMMError(f"There is no format {format!r}; choose one of {', '.join(FORMATS)}.")
    folder = folder_named(folder)
    path = Path(out) if out else folder / f"report.{format}"
    findings = find(folder)
    with on_disk(f"The report cannot be written to {path}"):
        write_to(path, partial(FORMATS[format], findings))
    return path


FORMATS: Mapping[str, Callable[[Findings, Path], None]] = {
    "html": write_page,
    "png": lambda findings, path: save(distribution(findings), path, "png"),
    "svg": lambda findings, path: save(distribution(findings), path, "svg"),
    "csv": partial(write_table, writer=pyarrow.csv.CSVWriter),
    "parquet": partial(write_table, writer=pyarrow.parquet.ParquetWriter),
}
"""The writer of each format."""
