"""The command ``invmm-eval``. Commands import what they need when they run: ``--help`` does not import torch."""

import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version as installed
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from invmm_eval.cli import check, extend, folders, measure, publish
from invmm_eval.cli.console import end_if_stdout_fails, err, print_error, say, spell_what_the_terminal_lacks
from invmm_eval.cli.options import refuse_empty_paths
from invmm_eval.errors import InvMMError
from invmm_eval.plugins.hooks import CommandEntry
from invmm_eval.plugins.host import host

SEPARATE = {"ui": "invmm-ui", "space": "invmm-ui"}
"""Commands of packages that are developed together with this one."""


class PluginCommand(TyperCommand):
    """A command of a plugin in the list of commands. Its module is imported when it runs."""

    def __init__(self, name: str, entry: CommandEntry) -> None:
        super().__init__(name, help=entry.help, rich_help_panel="Commands of plugins")
        self._entry = entry

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Read the arguments of the command itself.

        Raises:
            InvMMError: It cannot be imported.
        """
        try:
            command = self._entry.load()
        except (Exception, SystemExit) as error:
            cause = error.__cause__ if isinstance(error, InvMMError) and error.__cause__ else error
            raise InvMMError(
                f"The command {info_name!r} of a plugin cannot be loaded ({type(cause).__name__}: {cause}); reinstall "
                "or update the plugin."
            ) from error
        return command.make_context(info_name, args, parent, **extra)


class Commands(TyperGroup):
    """Runs a command. An expected error is one sentence and exit code 1, an interruption is exit code 128 + signal."""

    def list_commands(self, ctx: Any) -> list[str]:
        """List the built-in commands, then those of plugins."""
        names = super().list_commands(ctx)
        try:
            return [*names, *sorted(host().commands)]
        except InvMMError as error:
            say(f"warning Commands of plugins are not listed: {error}", err)
            return names

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Find a built-in command, or else one of a plugin."""
        if builtin := super().get_command(ctx, cmd_name):
            return builtin
        if entry := host().commands.get(cmd_name):
            return PluginCommand(cmd_name, entry)
        if package := SEPARATE.get(cmd_name):
            raise InvMMError(
                f"The command {cmd_name!r} is in the package {package}: pip install {package}, in a clone "
                f"./plugins/{package}."
            )
        return None

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the options before the command. ``--debug`` may also follow the command."""
        if "--debug" in args:
            args = ["--debug", *(argument for argument in args if argument != "--debug")]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the requested command."""
        signals = [signal.SIGINT]
        try:
            with _interrupted_by_sigterm(signals):
                return super().invoke(ctx)
        except InvMMError as error:
            if ctx.params["debug"]:
                raise
            print_error(error)
            raise typer.Exit(1) from error
        except KeyboardInterrupt as interruption:
            kept = "Finished images are kept; run the same command again to resume."
            say(f"Stopped. {kept if ctx.invoked_subcommand in MEASURING else 'The same command starts anew.'}", err)
            raise typer.Exit(128 + signals[-1]) from interruption


@contextmanager
def _interrupted_by_sigterm(signals: list[signal.Signals]) -> Iterator[None]:
    """SIGTERM, which schedulers send at the end of a time limit, stops a command as Ctrl-C does.

    The signal is appended to ``signals``: a KeyboardInterrupt does not say which signal caused it, and libraries such
    as Ray raise their own.
    """

    def interrupt(number: int, _: object) -> None:
        signals.append(signal.Signals(number))
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


app = typer.Typer(
    cls=Commands,
    help="Has this diffusion model memorized this image? Counts how many of the model's samples are copies of it, and "
    "states the share with its limits.",
    epilog="On the model of the package: invmm-eval demo --quick. On yours: invmm-eval audit --model FOLDER --images "
    "FOLDER --out audit",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error or a failed image.")] = False,  # noqa: ARG001
) -> None:
    """Options before the command. :class:`Commands` reads ``debug``."""
    if version:
        typer.echo(f"invmm-eval {installed('invmm-eval')}")
        raise typer.Exit


PANELS: Mapping[str, tuple[Callable[..., None], ...]] = {
    "Measure": (measure.audit, measure.run, check.check, measure.screen, measure.calibrate, measure.demo),
    "Read": (publish.report, folders.compare, measure.status, folders.verify, folders.merge),
    "Publish": (publish.card, publish.push),
    "Extend": (extend.plugins, extend.new_plugin, extend.register),
}
MEASURING = [command.__name__ for command in PANELS["Measure"]]
"""Commands that keep what they finished when they are interrupted."""

for panel, commands in PANELS.items():
    for command in commands:
        refuse_empty_paths(command)
        app.command(command.__name__.replace("_", "-"), rich_help_panel=panel)(command)


def main() -> None:
    """Run the command line of this process, which is also an extension of the command ``hf``."""
    spell_what_the_terminal_lacks()
    try:
        app(prog_name="hf invmm" if Path(sys.argv[0]).stem == "hf-invmm" else "invmm-eval")
    except OSError:
        end_if_stdout_fails()
        raise
