"""The table of an audit as a file, written in parts, so that a million rows need no more memory than a thousand."""

from array import array
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from invmm_eval.audits.folder import read
from invmm_eval.audits.progress import Bar
from invmm_eval.audits.results import table
from invmm_eval.reports.findings import readable
from invmm_eval.search.fields import columns
from invmm_eval.search.result import Result, rank

_ROWS = 1024
"""Number of rows that are in memory."""


def write_table(folder: Path, path: Path, *, writer: Callable[..., AbstractContextManager[Any]]) -> None:
    """Write one row per image, the most memorized first, with the columns of the face ``dataset``.

    Rows are read twice: for their rank and the columns of estimators, of which 40 bytes a row are kept, and to be
    written.

    Args:
        folder: Folder of the audit.
        path: Output file.
        writer: Opens the file for tables of a schema, as :class:`pyarrow.csv.CSVWriter` does.

    Raises:
        InvMMError: The folder holds no audit, or it is damaged.
        OSError: The file cannot be written.
    """
    record = read(folder)
    rows = record.rows
    ranks = array("d")

    def ranked() -> Iterator[Result]:
        for result in record.results():
            ranks.extend(rank(result))
            yield result

    with readable(folder / "results.jsonl"):
        fields = columns("dataset", ranked())
        order = np.lexsort(np.array(ranks).reshape(len(rows), -1).T[::-1])
        schema = pa.schema([(field.name, field.type) for field in fields])
        with path.open("wb") as out, writer(out, schema) as file, Bar(len(rows), doing="writing") as bar:
            results = bar.over(record.result(rows[number]) for number in order)
            while part := list(islice(results, _ROWS)):
                file.write_table(table(part, fields))
