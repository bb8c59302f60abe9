"""The documents, and their examples: the fenced blocks of Python and of the shell."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SKILL = "invmm_eval/.agents/skills/invmm-eval/SKILL.md"
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "docs/lab/*.md", "plugins/*/README.md", SKILL)
    for path in ROOT.glob(pattern)
)
LANGUAGES = ("python", "sh", "console")
NO_EXAMPLES = ("", "bibtex", "json", "text", "toml", "yaml")


@dataclass(frozen=True)
class Example:
    """A fenced block.

    Attributes:
        place: Its document and line.
        language: What follows the fence.
        text: What is between the fences.
        reason: Why it is not run: the comment ``<!-- not run: ... -->`` in the line before it.
    """

    place: str
    language: str
    text: str
    reason: str | None

    @property
    def commands(self) -> Iterator[list[str]]:
        """The words of each command, lines that go on joined; lines without the prompt of a console are output."""
        for line in self.text.replace("\\\n", " ").splitlines():
            command = line.removeprefix("$ ")
            if self.language == "sh" or command != line:
                words = shlex.split(command, comments=True)
                if words:
                    yield words


def name(document: Path) -> str:
    """The document's path in the repository."""
    return str(document.relative_to(ROOT))


def prose(document: Path) -> str:
    """A document without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", document.read_text("utf-8"), flags=re.M | re.S)


def blocks(document: Path) -> list[Example]:
    """All fenced blocks of a document, in their order."""
    text = document.read_text("utf-8")
    found = re.finditer(r"^(?:<!-- not run: (.+) -->\n)?```(.*)\n((?s:.*?))^```$", text, re.M)
    return [
        Example(f"{name(document)}:{text[: block.start()].count(chr(10)) + 1}", block[2], block[3], block[1])
        for block in found
    ]
