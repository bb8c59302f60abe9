"""The notebook runs, and what is stored in it is what its cells show."""

import re

from tests.helpers import notebook
from tests.helpers.documents import ROOT

SHORT = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import pytest
from tests.helpers.short import shorten
shorten(pytest.MonkeyPatch())
"""


def test_the_notebook_runs_and_shows_what_is_stored() -> None:
    stored, ran = notebook.read(), notebook.run(SHORT)
    for before, now in zip(stored.cells, ran.cells, strict=True):
        kinds = [[sorted(output.get("data", ["text"])) for output in cell.get("outputs", [])] for cell in (before, now)]
        assert kinds[0] == kinds[1], before.id
    shown = {cell.id: cell.get("outputs", []) for cell in ran.cells}
    assert shown["pictures"][0] == next(cell for cell in stored.cells if cell.id == "pictures").outputs[0]
    [results] = shown["run"]
    assert results.data["text/html"].count("<img src=") == 2
    assert re.search(r"found:\s+0: ", shown["truth"][0].text)


def test_the_notebook_is_small_and_stored_without_warnings() -> None:
    assert notebook.NOTEBOOK.stat().st_size < 100_000
    for cell in notebook.read().cells:
        assert len(notebook.shown(cell)) == len(cell.get("outputs", [])), cell.id
