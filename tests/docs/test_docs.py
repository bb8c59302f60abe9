"""What the documents show works: every Python block and every invmm-eval command of the README is run."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import invmm_ui
import pytest
import typer

from invmm_eval.cli.app import app
from invmm_eval.reference import plain_samples
from tests.helpers import audits
from tests.helpers.command import Invoke
from tests.helpers.hub import Hub, Repository
from tests.helpers.short import shorten

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path for pattern in ("*.md", "docs/*.md", "docs/lab/*.md", "plugins/*/README.md") for path in ROOT.glob(pattern)
)
PRELUDE = "import pytest; from tests.helpers.short import shorten; shorten(pytest.MonkeyPatch())\n"
"""What makes the documents' code short in a process of its own."""
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
PYTHON = [text for language, text in BLOCKS if language == "python"]
HARNESSES = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "harnesses.md").read_text("utf-8"), re.M | re.S)
COMMANDS = [
    line.split()
    for language, text in BLOCKS
    if language == "sh"
    for line in text.splitlines()
    if line.startswith("invmm-eval")
]
TUTORIAL = [
    line.split()[1:]
    for text in re.findall(r"^```sh\n(.*?)^```", (ROOT / "docs" / "tutorial.md").read_text("utf-8"), re.M | re.S)
    for line in text.splitlines()
]
CARDS = re.findall(r"^```(\w+)\n(.*?)^```", (ROOT / "docs" / "model-cards.md").read_text("utf-8"), re.M | re.S)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, as one has after the installation."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *sys.path]))
    return tmp_path


def process(code: str, *arguments: str) -> str:
    """Run code of the documents in a process of its own; returns what it printed."""
    command = [sys.executable, "-c", PRELUDE + code, *arguments]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_the_readme_shows_three_ways() -> None:
    assert len(PYTHON) == 2
    assert [command[1] for command in COMMANDS] == ["audit", "report"]


@pytest.mark.parametrize("code", [*PYTHON, *HARNESSES])
@pytest.mark.usefixtures("workplace")
def test_python_in_the_documents_runs_as_it_stands(code: str) -> None:
    assert re.search(r"\binf\b|exhausted|replicated", process(code))


def test_commands_in_the_readme_run_as_they_stand(workplace: Path) -> None:
    run, report = [process("from invmm_eval.cli import main; main()", *command[1:]) for command in COMMANDS]
    assert "Results are in audit." in run
    assert (workplace / "audit" / "results.jsonl").read_text().count("\n") == 1
    assert report == "Wrote audit/report.html.\n"


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


def test_the_tutorial_leads_to_a_pull_request(
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    invoke: Invoke,
) -> None:
    """Its commands in their order, made short, against a Hub on loopback."""
    shorten(monkeypatch)
    with Hub({"models/org/model": Repository({"README.md": b"# Model\n"})}) as hub:
        hub.redirect(monkeypatch, workplace / "cache")
        for command in TUTORIAL:
            code, out, _ = invoke(*command)
            assert code == 0, out
    assert [command[0] for command in TUTORIAL] == ["run", "run", "status", "report", "report", "card", "card", "card"]
    assert (workplace / "audit-held-out" / "report.html").exists()
    [pull_request] = hub.repositories["models/org/model"].pull_requests
    assert b"Memorization audit (InvMM)" in pull_request["README.md"]


def test_an_audit_comes_into_a_card(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    invoke: Invoke,
) -> None:
    """The blocks of the tutorial in their order, against a Hub on loopback."""
    audits.guided(tmp_path / "audit")
    monkeypatch.chdir(tmp_path)
    printed = []
    with Hub({"models/org/model": Repository({"README.md": b"# Model\n"})}) as hub:
        hub.redirect(monkeypatch, tmp_path / "cache")
        for language, text in CARDS:
            if language == "sh":
                code, out, err = invoke(*text.split()[1:])
                assert (code, err) == (0, "")
            else:
                exec(text, {})
                out = capsys.readouterr().out
            printed.append(out)
    written, read, shown, published, loaded, proposal, proposed = printed
    assert written == "Wrote the audit into README.md.\n"
    assert "replicated from chosen noise 0.571" in read
    assert "'verdict': 'memorized'" in loaded
    assert all(text.endswith("Nothing was sent. Add --yes to send it.\n") for text in (shown, proposal))
    assert f"{hub.url}/datasets/org/audit/commit/" in published
    assert proposed.splitlines()[-1] == f"{hub.url}/org/model/discussions/1"
    [pull_request] = hub.repositories["models/org/model"].pull_requests
    assert set(pull_request) == {"README.md", ".eval_results/invmm.yaml", "memorization-audit/distribution.png"}


def test_the_results_of_a_run_are_read_as_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    audits.guided(tmp_path / "audit")
    monkeypatch.chdir(tmp_path)
    [code] = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "runs.md").read_text("utf-8"), re.M | re.S)
    shown: dict[str, Any] = {}
    exec(code, shown)
    assert len(shown["table"]) == len(shown["audit"].rows) > 0
    assert shown["result"].digest == shown["audit"].rows[0]["digest"]


def commands(document: Path) -> list[list[str]]:
    """The invmm-eval commands of a document's shell blocks, lines that go on joined."""
    blocks = re.findall(r"^```(?:sh|console)\n(.*?)^```", document.read_text("utf-8"), re.M | re.S)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    ours = [line.removeprefix("$ ") for line in lines if re.match(r"(\$ )?invmm-eval ", line)]
    return [shlex.split(line, comments=True)[1:] for line in ours]


@pytest.mark.parametrize(
    "document",
    DOCUMENTS,
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_commands_in_the_documents_are_those_of_the_program(document: Path) -> None:
    program = typer.main.get_command(app)
    assert isinstance(program, typer.core.TyperGroup)
    in_package = invmm_ui.register_commands()
    for name, *arguments in commands(document):
        command = in_package[name].load() if name in in_package else program.commands[name]
        command.make_context(name, arguments)


def test_make_has_the_targets_of_the_readme() -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {"demo", "test", "lint", "clean"} <= set(targets)


def anchors(document: Path) -> set[str]:
    """Where links into a document may lead: its headings as GitHub names them, and its own anchors."""
    text = re.sub(r"^```.*?^```", "", document.read_text("utf-8"), flags=re.M | re.S)
    titles = re.findall(r"^#+ (.*)", text, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles} | {
        *re.findall(r'<a id="(.*?)">', text)
    }


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    for link, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", document.read_text("utf-8")):
        if not link.startswith("http"):
            target = document.parent / link if link else document
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), f"{link}#{anchor}"


def test_every_hook_is_documented() -> None:
    from invmm_eval.plugins import hooks as hookspecs

    text = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    hooks = [name for name in vars(hookspecs) if name.startswith("register_")]
    assert hooks
    assert all(f"{name}() -> " in text for name in hooks)
