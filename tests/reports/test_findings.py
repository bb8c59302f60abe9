"""Findings: an audit's folder as it is read, and its table."""

from pathlib import Path

import pytest

from invmm_eval.audits.request import command
from invmm_eval.errors import InvMMError
from invmm_eval.reports.findings import find
from invmm_eval.reports.wording import meaning
from invmm_eval.search.fields import columns
from tests.helpers import audits


def test_the_table_has_one_row_per_image_and_the_columns_of_the_fields(tmp_path: Path) -> None:
    found = find(audits.guided(tmp_path))
    table = found.table()
    assert table.column_names == [column.name for column in columns("dataset")]
    rows = table.to_pylist()
    assert [row["name"] for row in rows] == [result.name for result in found.results]
    assert [row["invmm"] for row in rows] == [0.02, 0.15, 0.4, 0.9, None, None, None]
    assert [row["guidance"] for row in rows] == [3.0] * 4 + [1.0, 1.0, None]
    assert rows[-1]["error"] == found.results[-1].error


def test_a_folder_without_an_audit(tmp_path: Path) -> None:
    with pytest.raises(InvMMError, match="holds no audit"):
        find(tmp_path)


def test_a_row_without_a_needed_key_is_one_sentence(tmp_path: Path) -> None:
    audits.guided(tmp_path)
    lines = tmp_path / "results.jsonl"
    lines.write_text(lines.read_text().replace('"dimensions"', '"size"'))
    with pytest.raises(InvMMError, match=r"Line 1 of .*results\.jsonl is damaged; remove it"):
        find(tmp_path)


def test_the_command_is_that_of_the_request(tmp_path: Path) -> None:
    found = find(audits.guided(tmp_path))
    assert found.command == command(found.record.request)
    assert found.public().command == command(found.record.public().request)


def test_a_public_copy_has_no_names_and_the_same_sentences(tmp_path: Path) -> None:
    found = find(audits.guided(tmp_path))
    public = found.public()
    assert public.headline == found.headline
    assert [meaning(r) for r in public.results[:6]] == [meaning(r) for r in found.results[:6]]
    assert public.counts == found.counts
    assert "balloon" not in str(public.results)
    assert not any(result.traceback for result in public.results)
