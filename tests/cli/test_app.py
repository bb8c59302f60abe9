"""The command as a whole: help, exit codes, interruptions, commands of plugins, and what it imports."""

import os
import re
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.main import get_command

from invmm_eval.audits import merge as merging
from invmm_eval.cli.app import app
from tests.helpers.audits import guided
from tests.helpers.command import MAIN, SET, Invoke, install, lines, python, several

HEAVY = ("torch", "diffusers", "datasets", "evaluate", "greeting")
IMPORTS = f"""
import sys
from invmm_eval.cli import main
try:
    main()
finally:
    print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)
"""


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], ["--version"], ["plugins"], ["plugins", "--json"], ["status", "audit"]]
)
def test_light_commands_import_nothing_heavy(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if "audit" in arguments:
        guided(tmp_path / "audit")
    code, out, err = python(IMPORTS, *arguments)
    assert (code, err) == (0, "[]\n")
    assert out


@pytest.mark.parametrize("width", [60, 100])
def test_help_shows_every_text_whole(width: int, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of it is taken for markup, and no word is too long for its column."""
    monkeypatch.setenv("COLUMNS", str(width))
    group: Any = get_command(app)
    for name, command in [("", group), *group.commands.items()]:
        code, out, err = invoke(*name.split(), "--help")
        assert (code, err) == (0, "")
        shown = re.sub(r"[\s│]", "", out)
        texts = [command.help.partition("\n\n")[0], *(parameter.help for parameter in command.params)]
        texts += [found.get_short_help_str(1000) for found in getattr(command, "commands", {}).values()]
        assert not [text for text in texts if re.sub(r"\s", "", text) not in shown], name


def test_the_version(invoke: Invoke) -> None:
    assert invoke("--version") == (0, f"invmm-eval {version('invmm-eval')}\n", "")


@pytest.mark.parametrize(
    ("options", "told"), [([], "error The"), (["--debug"], "Traceback [(]most .*invmm_eval.errors.InvMMError: The")]
)
def test_where_plugins_must_work_a_broken_one_is_an_error_that_may_be_traced(
    options: list[str], told: str, broken: list[str]
) -> None:
    code, out, err = python(MAIN, *options, "plugins", path=broken, INVMM_EVAL_STRICT="1")
    assert (code, out) == (1, "")
    assert re.match(rf"{told} plugin 'the-faulty' .*a_library_that_is_not_there.*\n$", err, re.S)


PLUGIN = """
from invmm_eval.plugin import CommandEntry, hookimpl

@hookimpl
def register_commands():
    return {
        "greet": CommandEntry("greeting:greet", "Greet somebody."),
        "tools": CommandEntry("greeting:tools", "Several tools."),
        "gone": CommandEntry("nowhere:gone", "A command whose module is missing."),
    }
"""
COMMANDS = """
import typer
from invmm_eval.plugin import InvMMError

def greet(name: str, loudly: bool = False) -> None:
    if name == "nobody":
        raise InvMMError("There is nobody to greet.")
    typer.echo(f"Hello, {name}{'!' if loudly else '.'}")

tools = typer.Typer()

@tools.command()
def one(number: int) -> None:
    typer.echo(f"one {number}")

@tools.command()
def two() -> None:
    typer.echo("two")
"""


@pytest.fixture
def greeting(tmp_path: Path) -> list[str]:
    """The path of a process in which a plugin with commands is installed."""
    install(tmp_path, "greeting-plugin", PLUGIN)
    (tmp_path / "greeting.py").write_text(COMMANDS)
    return [str(tmp_path), *sys.path]


def test_commands_of_plugins_are_listed_with_their_help_and_not_imported(greeting: list[str]) -> None:
    code, out, err = python(IMPORTS, "--help", path=greeting)
    assert (code, err) == (0, "[]\n")
    assert re.search(r"greet +Greet somebody\.", out)
    assert re.search(r"gone +A command whose module is missing\.", out)


def test_commands_of_plugins_run_and_have_their_own_help(greeting: list[str]) -> None:
    commands = ["greet", "Ann", "--loudly"], ["tools", "one", "3"], ["tools", "two"], ["tools", "--help"]
    *printed, shown = several(*commands, path=greeting)
    assert printed == ["Hello, Ann!\n", "one 3\n", "two\n"]
    assert "Usage: invmm-eval tools [OPTIONS] COMMAND" in shown
    assert "completion" not in shown


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["greet", "nobody"], "There is nobody to greet."),
        (
            ["gone"],
            "The command 'gone' of a plugin cannot be loaded (ModuleNotFoundError: No module named 'nowhere'); "
            "reinstall or update the plugin.",
        ),
    ],
)
def test_an_error_of_a_plugin_command_is_one_sentence(arguments: list[str], error: str, greeting: list[str]) -> None:
    assert python(MAIN, *arguments, path=greeting) == (1, "", f"error {error}\n")


@pytest.mark.parametrize("name", ["ui", "space"])
def test_a_command_of_a_package_that_is_not_installed_names_the_package(name: str) -> None:
    code, out, err = python(MAIN, name, INVMM_EVAL_PLUGINS="no:ui")
    assert (code, out) == (1, "")
    assert err.startswith(f"error The command '{name}' is in the package invmm-ui: pip install invmm-ui, ")


def test_a_broken_plugin_does_not_break_other_commands(broken: list[str]) -> None:
    code, out, err = python(MAIN, "--help", path=broken, INVMM_EVAL_STRICT="1")
    assert code == 0
    assert " status " in out
    assert err.startswith("warning Commands of plugins are not listed: The plugin 'the-faulty'")
    assert python(MAIN, "status", "nowhere", path=broken, INVMM_EVAL_STRICT="1")[2].startswith("error nowhere holds no")
    code, _, err = python(MAIN, "walk", path=broken)
    assert code == 2
    assert "No such command 'walk'" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["run"],
        ["walk"],
        ["run", "--model", "m"],
        ["run", "--speed", "3"],
        ["run", "--batch-size", "0"],
        ["run", "--model", "m", "--images", "i", "--out", ""],
        ["merge", "out", "part", ""],
    ],
)
def test_wrong_usage(arguments: list[str], invoke: Invoke) -> None:
    code, out, err = invoke(*arguments)
    assert (code, out) == (2, "")
    assert "Usage: invmm-eval" in err


def test_a_command_that_keeps_nothing_says_so_when_it_is_interrupted(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(merging, "merge", interrupted)
    code, out, err = invoke("merge", tmp_path / "out", tmp_path / "part")
    assert (code, out, err) == (130, "", "Stopped. The same command starts anew.\n")


def test_an_interruption_keeps_what_is_finished(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for value in range(40):
        Image.fromarray(np.full((8, 8, 3), (value, 90, 200), np.uint8)).save(tmp_path / "images" / f"{value}.png")
    out_folder = tmp_path / "out"
    arguments = ["run", "--model", tiny_folder, "--images", tmp_path / "images", "--out", out_folder, *SET]
    code = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler); {MAIN}"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments), "--set", "max_steps=50", "--batch-size", "1"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    results = out_folder / "results.jsonl"
    while process.poll() is None and not (results.exists() and results.read_bytes()):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert (process.returncode, out) == (130, ""), err
    assert err.splitlines()[-1] == "Stopped. Finished images are kept; run the same command again to resume."
    assert "Traceback" not in err
    assert 0 < len(lines(out_folder)) < 40
