"""What the documents state and refer to is so: figures, options of commands, links, hooks, targets of make."""

import re
from collections.abc import Iterator
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import invmm_ui
import pytest
import typer

from invmm_eval.cli.app import app
from invmm_eval.plugins import hooks as hookspecs
from invmm_eval.reference import plain_samples
from tests.helpers.documents import DOCUMENTS, ROOT, blocks, name, prose


def rows(document: str) -> dict[str, str]:
    """The rows of its tables whose first cell is a number, or says that a picture was held out, by this cell."""
    found = re.findall(r"^\| ([\d, or]+|held out) \| (.*) \|$", (ROOT / document).read_text("utf-8"), re.M)
    return {first: f"{rest} {dict(found[:number]).get(first, '')}" for number, (first, rest) in enumerate(found)}


def test_figures_of_the_readme_are_those_of_the_page_that_it_cites() -> None:
    page, shown = rows("docs/reference-model.md"), rows("README.md")
    assert shown
    for copies, cells in shown.items():
        for each in copies.split(" or "):
            for cell in cells.strip().split(" | "):
                assert cell in page[each], (each, cell)
    assert f"copies among {plain_samples():,} plain samples" in (ROOT / "README.md").read_text("utf-8")


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_commands_in_the_documents_are_those_of_the_program(document: Path) -> None:
    program = typer.main.get_command(app)
    assert isinstance(program, typer.core.TyperGroup)
    in_package = invmm_ui.register_commands()
    examples = [block for block in blocks(document) if block.language in ("sh", "console")]
    for words in [command for example in examples for command in example.commands if command[0] == "invmm-eval"]:
        command = in_package[words[1]].load() if words[1] in in_package else program.commands[words[1]]
        command.make_context(words[1], words[2:])


def options(command: Any) -> Iterator[str]:
    """The options of a command and of its subcommands."""
    yield "--help"
    for parameter in command.params:
        yield from (*parameter.opts, *parameter.secondary_opts)
    for part in getattr(command, "commands", {}).values():
        yield from options(part)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_options_and_names_in_the_text_exist(document: Path) -> None:
    """In code within lines: blocks are run. The changelog and the lab notes also tell what was."""
    if name(document) == "CHANGELOG.md" or "lab" in document.parts:
        return
    commands = [typer.main.get_command(app), *(entry.load() for entry in invmm_ui.register_commands().values())]
    known = {option for command in commands for option in options(command)}
    for code in re.findall(r"`([^`]+)`", prose(document)):
        if code.startswith(("--", "invmm-eval ")):
            assert set(re.findall(r"(?<!\S)--[a-z-]+", code)) <= known, code
        for named in re.findall(r"\binvmm_eval(?:\.\w+)+", code):
            assert resolve_name(named), named


def test_make_has_the_targets_of_the_documents() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    told = re.findall(r"`make\s([a-z\s-]+)`", " ".join(document.read_text("utf-8") for document in DOCUMENTS))
    named = set(" ".join(told).split())
    assert {"test", "lint"} <= named <= targets, named - targets


def anchors(document: Path) -> set[str]:
    """Where links into a document may lead: its headings as GitHub names them, and its own anchors."""
    text = prose(document)
    titles = re.findall(r"^#+ (.*)", text, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles} | {
        *re.findall(r'<a id="(.*?)">', text)
    }


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_links_lead_somewhere(document: Path) -> None:
    for link, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", document.read_text("utf-8")):
        if not link.startswith("http"):
            target = document.parent / link if link else document
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), f"{link}#{anchor}"


@pytest.mark.parametrize("page", ["estimator", "evidence", "fast", "performance"])
def test_a_page_in_front_of_a_lab_notebook_is_short(page: str) -> None:
    text = (ROOT / "docs" / f"{page}.md").read_text("utf-8")
    assert text.partition("\n")[0].endswith(": what to know")
    assert len(text.split()) <= 400


def test_every_hook_is_documented() -> None:
    guide, reference = ((ROOT / "docs" / page).read_text("utf-8") for page in ("plugins.md", "reference-plugins.md"))
    hooks = [name for name in vars(hookspecs) if name.startswith("register_")]
    assert hooks
    for hook in hooks:
        assert f"{hook}() -> " in guide
        assert hook in reference
