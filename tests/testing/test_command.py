"""Each promise of a command is broken by a fake that breaks no other."""

from typing import Annotated

import pytest
import typer

from invmm_eval.plugin import CommandEntry
from invmm_eval.testing import BrokenPromise, check_command

Count = Annotated[int, typer.Option(help="How often.")]


def good(count: Count = 1) -> None:
    """Say hello."""


def undocumented(count: Count = 1) -> None:
    pass


def silent(count: int = 1) -> None:
    """Say hello."""


group = typer.Typer(help="Say something.")
group.command("hello")(good)
group.command("bye")(good)

broken_group = typer.Typer(help="Say something.")
broken_group.command("hello")(good)
broken_group.command("bye")(silent)

NO_COMMAND = 3


def entry(name: str, text: str = "Say hello.") -> CommandEntry:
    return CommandEntry(f"{__name__}:{name}", text)


@pytest.mark.parametrize("name", ["good", "group"])
def test_a_good_command_passes(name: str) -> None:
    check_command(entry(name))


@pytest.mark.parametrize(
    ("sentence", "command"),
    [
        ("is a function", good),
        ("help is ''", entry("good", "")),
        ("help is 'two", entry("good", "two\nlines")),
        ("at most 80 characters", entry("good", 81 * "x")),
        ("cannot be imported .AttributeError", entry("missing")),
        ("cannot be imported .ModuleNotFoundError: No module named 'nowhere'", CommandEntry("nowhere:run", "Run.")),
        ("is no command .TypeError: 3 is not", entry("NO_COMMAND")),
        ("undocumented has no help text", entry("undocumented")),
        ("silent has a parameter 'count' without a help text", entry("silent")),
        ("broken_group bye has a parameter 'count'", entry("broken_group")),
    ],
)
def test_a_broken_promise_is_named(sentence: str, command: CommandEntry) -> None:
    with pytest.raises(BrokenPromise, match=sentence):
        check_command(command)
