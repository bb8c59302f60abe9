"""Findings: an audit's folder as it is read, and its table."""

from pathlib import Path

import pytest

from invmm_eval.errors import InvMMError
from invmm_eval.reports.findings import find
from invmm_eval.reports.wording import meaning
from tests.helpers import audits


def test_a_row_without_a_needed_key_is_one_sentence(tmp_path: Path) -> None:
    audits.guided(tmp_path)
    lines = tmp_path / "results.jsonl"
    lines.write_text(lines.read_text().replace('"dimensions"', '"size"'))
    with pytest.raises(InvMMError, match=r"Line 1 of .*results\.jsonl is damaged; remove it"):
        find(tmp_path)


def test_a_public_copy_has_no_names_and_the_same_sentences(tmp_path: Path) -> None:
    found = find(audits.guided(tmp_path))
    public = found.public()
    assert public.headline == found.headline
    assert [meaning(r) for r in public.results[:6]] == [meaning(r) for r in found.results[:6]]
    assert public.counts == found.counts
    assert "balloon" not in str(public.results)
    assert not any(result.traceback for result in public.results)
