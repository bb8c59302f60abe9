"""Croissant metadata of a data set (``mlcommons.org/croissant/1.0``): what each column of its table means.

The Hub writes Croissant metadata of its own for every table, which lists the columns but cannot know their meaning.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from invmm_eval.audits.folder.manifest import sha256_of
from invmm_eval.reports.card import TEMPLATES

_TYPES = (
    (pa.types.is_boolean, "sc:Boolean"),
    (pa.types.is_integer, "sc:Integer"),
    (pa.types.is_floating, "sc:Float"),
    (pa.types.is_struct, "sc:ImageObject"),
)


def metadata(
    name: str, description: str, date: str, parquet: Path, schema: pa.Schema, columns: Mapping[str, str]
) -> str:
    """The metadata as JSON-LD.

    Args:
        name: The name of the data set.
        description: What it is, in a sentence.
        date: The day on which it was made, as ISO 8601 has it.
        parquet: Its table, a file in its folder.
        schema: The types of the columns; pictures are structs with ``bytes``.
        columns: What each column means.
    """
    table = {
        "@type": "cr:FileObject",
        "@id": parquet.name,
        "name": parquet.name,
        "contentUrl": parquet.name,
        "encodingFormat": "application/x-parquet",
        "sha256": sha256_of(parquet),
    }
    results = {
        "@type": "cr:RecordSet",
        "@id": "results",
        "name": "results",
        "description": "One record per image.",
        "field": [_field(parquet.name, column, schema.field(column).type, means) for column, means in columns.items()],
    }
    known = json.loads(TEMPLATES.get_template("croissant.json").render())
    own = {"name": name, "description": description, "datePublished": date, "distribution": [table]}
    return json.dumps({**known, **own, "recordSet": [results]}, indent=2) + "\n"


def _field(file: str, column: str, kind: pa.DataType, description: str) -> dict[str, Any]:
    source: dict[str, Any] = {"fileObject": {"@id": file}, "extract": {"column": column}}
    if pa.types.is_struct(kind):
        source["transform"] = {"jsonPath": "bytes"}
    return {
        "@type": "cr:Field",
        "@id": f"results/{column}",
        "name": column,
        "description": description,
        "dataType": next((name for fits, name in _TYPES if fits(kind)), "sc:Text"),
        "source": source,
    }
