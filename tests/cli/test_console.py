"""What is printed: any text is safe for a terminal, and any terminal takes any text."""

import io
import os
import subprocess
import sys

import pytest

from invmm_eval.cli.console import Terminal, printable, say

SENTENCE = r"""
from invmm_eval.cli.console import say, spell_what_the_terminal_lacks
spell_what_the_terminal_lacks()
say("InvMM \u221e\u2026 \u753b \udcff \x1b[31m")
"""


def test_control_characters_are_shown_and_not_sent() -> None:
    assert printable("a\tb\nc \u00e9 \u753b \u221e") == "a\tb\nc \u00e9 \u753b \u221e"
    assert printable("\x1b[2J\x07\r\u202e\x9b\udcff") == r"\x1b[2J\x07\r\u202e\x9b\udcff"


def test_a_width_of_0_is_that_of_no_terminal() -> None:
    assert Terminal(file=io.StringIO(), _environ={"COLUMNS": "0"}).width == 80


def test_names_send_nothing_to_a_terminal_that_has_colours() -> None:
    screen = Terminal(file=io.StringIO(), force_terminal=True, width=80)
    say("cat\x1b[2J.png", screen, style="red")
    assert isinstance(screen.file, io.StringIO)
    sent = screen.file.getvalue()
    assert r"cat\x1b[2J.png" in sent
    assert "\x1b[31m" in sent, "its own colours stay"


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "cp1252", "ascii"])
def test_a_terminal_of_any_encoding_takes_any_text(encoding: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SENTENCE],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=True,
    )
    text = done.stdout.decode(encoding)
    assert r"\udcff \x1b[31m" in text
    assert text.startswith("InvMM \u221e\u2026 \u753b" if encoding == "utf-8" else "InvMM inf")
