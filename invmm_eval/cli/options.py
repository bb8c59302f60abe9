"""Options of commands, derived from the options of an audit, and texts of the form KEY=VALUE."""

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from invmm_eval.audits.option import options_of
from invmm_eval.audits.options import (
    ALL_OPTIONS,
    OPTIONS,
    Choices,
    Extent,
    ModelOptions,
    Option,
    Output,
    Resources,
    Screen,
    offered,
)
from invmm_eval.errors import InvMMError
from invmm_eval.recipe import Recipe

_PANELS = {
    ModelOptions: "Model",
    Output: "Output",
    Extent: "Extent",
    Screen: "Screen",
    Choices: "Measurement",
    Resources: "Resources",
}


Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of an audit.")]


def with_flags(
    names: Collection[str] = OPTIONS, own: Iterable[inspect.Parameter] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a command: its ``**options`` become one flag for each of these options of an audit.

    Args:
        names: The options that the command has.
        own: Further parameters that ``**options`` stands for.
    """
    flags = [
        inspect.Parameter(
            option.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=[] if option.repeatable else option.default,
            annotation=Annotated[option.command_type, _flag(option, panel)],
        )
        for kind, panel in _PANELS.items()
        for option in offered(names)
        if option.name in options_of(kind)
    ]

    further = [*(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own), *flags]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command)
        named = [parameter for name, parameter in signature.parameters.items() if name != "options"]
        command.__signature__ = signature.replace(parameters=[*named, *further])  # type: ignore[attr-defined]
        command.__annotations__ |= {parameter.name: parameter.annotation for parameter in further}
        return command

    return decorate


def _flag(option: Option, panel: str) -> Any:
    return typer.Option(
        option.flag,
        help=f"{option.help} Repeatable." if option.repeatable else option.help,
        metavar=option.metavar,
        min=option.minimum,
        rich_help_panel=panel,
    )


def refuse_empty_paths(command: Callable[..., None]) -> None:
    """Let typer refuse a path that is empty, which :class:`~pathlib.Path` takes for the working folder."""
    for hint in command.__annotations__.values():
        if Path in (getattr(hint, "__origin__", None), *get_args(getattr(hint, "__origin__", None))):
            hint.__metadata__[0].parser = _path


def _path(text: str) -> Path:
    if not text:
        raise typer.BadParameter("The path is empty; write . for the working folder.")
    return Path(text)


def read_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Turn what the flags of :func:`with_flags` hold into the values of the options.

    Raises:
        InvMMError: A text is not KEY=VALUE, or a setting of the recipe does not exist.
    """
    values = {
        name: pairs(value) if ALL_OPTIONS[name].repeatable and name != "settings" else value
        for name, value in options.items()
    }
    if "settings" in options:
        values["settings"] = Recipe.parse(options["settings"])
    return values


def pairs(texts: list[str]) -> dict[str, Any]:
    """Read ``KEY=VALUE`` texts. Values that look like a truth value or a number are read as one.

    Raises:
        InvMMError: A text has no ``=``.
    """
    found: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise InvMMError(f"{text!r} is not KEY=VALUE.")
        found[key.replace("-", "_")] = read_value(value)
    return found


def read_value(text: str) -> bool | int | float | str:
    """Read a truth value or a number, or return the text."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
