"""The terminal: where tables and messages go."""

import codecs
import os
import sys
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.segment import Segment
from rich.text import Text

_SPELLED = {"∞": "inf", "…": "...", "–": "-", "×": "x", "≤": "<=", "≥": ">="}  # noqa: RUF001


def printable(text: str) -> str:
    """Text whose control characters are shown instead of sent: names and cards may hold sequences for terminals."""
    return "".join(
        character if character.isprintable() or character in "\n\t" else ascii(character)[1:-1] for character in text
    )


class Terminal(Console):
    """A console to which only its own control sequences are sent."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        if not self.width:  # some launchers set COLUMNS to 0
            self.width = 80

    def render(self, *arguments: Any, **options: Any) -> Iterator[Segment]:
        """Segments without control characters in their text."""
        for segment in super().render(*arguments, **options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


def spell_what_the_terminal_lacks() -> None:
    """Let stdout and stderr spell characters that their encoding does not have, instead of raising an error."""
    codecs.register_error("invmm-eval", _spelled)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="invmm-eval")


def _spelled(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end]
    return "".join(_SPELLED.get(character, ascii(character)[1:-1]) for character in lacking), error.end


out = Terminal()
err = Terminal(stderr=True)


def say(message: object, console: Console = out, **style: Any) -> None:
    """Print a message: on a terminal in lines that break between words, elsewhere in one line."""
    console.print(Text(str(message), **style), soft_wrap=not console.is_terminal)


def print_error(message: object) -> None:
    """Print an error on stderr."""
    err.print(Text.assemble(("error ", "red"), str(message)), soft_wrap=not err.is_terminal)


def end_if_stdout_fails() -> None:
    """End the process with one sentence and exit code 1 where stdout still cannot be written, as to a full disk."""
    try:
        print(flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it once more at the end
        print_error(f"The output of this command cannot be written: {error.strerror}.")
        sys.exit(1)


def hide_library_bars() -> None:
    """Hide the progress bars and warnings of diffusers and transformers, which appear even without a terminal."""
    from diffusers.utils.logging import disable_progress_bar
    from transformers.utils import logging

    disable_progress_bar()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
