"""Checks that a command keeps the promises of :class:`~invmm_eval.plugin.CommandEntry`."""

import io
from collections.abc import Iterator
from contextlib import redirect_stdout
from typing import Any

from invmm_eval.errors import InvMMError
from invmm_eval.plugins.hooks import CommandEntry
from invmm_eval.testing.promises import BrokenPromise, promise

LONGEST_HELP = 80
"""Characters of the line in the list of commands."""


def check_command(entry: CommandEntry) -> None:
    """Load a command and print its help. The command itself is not run.

    Raises:
        BrokenPromise: Which promise is broken, and how to fix it, in one sentence.
    """
    promise(isinstance(entry, CommandEntry), f"The command is a {type(entry).__name__}; register a CommandEntry.")
    promise(
        bool(entry.help.strip()) and "\n" not in entry.help and len(entry.help) <= LONGEST_HELP,
        f"The command's help is {entry.help!r}; write one line of at most {LONGEST_HELP} characters.",
    )
    try:
        command = entry.load()
    except InvMMError as error:
        raise BrokenPromise(str(error)) from error
    except Exception as error:
        message = " ".join(str(error).split()).rstrip(".")
        raise BrokenPromise(
            f"{entry.target} is no command ({type(error).__name__}: {message}); name a function with typer's "
            "annotations, or a typer.Typer."
        ) from error
    for name, leaf in _leaves(entry.target, command):
        promise(bool(leaf.help), f"{name} has no help text; write a docstring.")
        for parameter in leaf.params:
            promise(
                bool(getattr(parameter, "help", None)),
                f"{name} has a parameter {parameter.name!r} without a help text; add help= to its annotation.",
            )
    printed = io.StringIO()
    with redirect_stdout(printed):
        code = command.main(["--help"], standalone_mode=False)
    promise(
        code in (0, None) and bool(printed.getvalue().strip()),
        f"{entry.target} does not print a help text for --help; leave --help to typer.",
    )


def _leaves(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """A command, or the subcommands of a group."""
    subcommands = getattr(command, "commands", None)
    if subcommands is None:
        yield name, command
    else:
        for sub, each in subcommands.items():
            yield from _leaves(f"{name} {sub}", each)
