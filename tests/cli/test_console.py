"""What is printed: any text is safe for a terminal, and any terminal takes any text."""

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from invmm_eval.cli.console import Terminal, printable, say
from tests.helpers.command import MAIN

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


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
@pytest.mark.parametrize("arguments", [["--help"], ["plugins", "--json"]])
def test_a_full_disk_behind_stdout_is_one_sentence(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-c", MAIN, *arguments], stdout=full, stderr=subprocess.PIPE, text=True)
    sentence = f"error The output of this command cannot be written: {os.strerror(errno.ENOSPC)}.\n"
    assert (done.returncode, done.stderr) == (1, sentence)


def test_an_error_that_is_not_of_stdout_keeps_its_traceback() -> None:
    code = f"from invmm_eval.cli import extend\nextend.Table = lambda *_: open('nowhere')\n{MAIN}"
    done = subprocess.run([sys.executable, "-c", code, "plugins"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[0].startswith("Traceback")
