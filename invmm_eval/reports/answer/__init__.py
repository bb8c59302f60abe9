"""The answer about one image: in words, and as one page of HTML or PDF."""

from collections.abc import Callable, Mapping
from pathlib import Path

from invmm_eval.errors import InvMMError
from invmm_eval.reports.answer.page import write_page
from invmm_eval.reports.answer.sheet import write_sheet
from invmm_eval.reports.answer.words import Answer as Answer

WRITERS: Mapping[str, Callable[[Answer, Path], None]] = {".html": write_page, ".pdf": write_sheet}
"""The writer of each kind of document, by the end of its name."""


def writer_of(path: Path) -> Callable[[Answer, Path], None]:
    """What writes a document of this name.

    Raises:
        InvMMError: There is none.
    """
    if path.suffix.lower() not in WRITERS:
        raise InvMMError(f"{path} ends neither in .html nor in .pdf; a document is one of the two.")
    return WRITERS[path.suffix.lower()]
