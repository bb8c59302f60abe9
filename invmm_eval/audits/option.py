"""One option as a face offers it, derived from a field that describes it."""

from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from invmm_eval.errors import InvMMError
from invmm_eval.hints import check_types


def check_values(options: Any) -> None:
    """Check the types of all options of an object, and that none is below its minimum.

    Raises:
        InvMMError: A value is wrong.
    """
    check_types(options)
    for part in fields(options):
        value, minimum = getattr(options, part.name), part.metadata.get("minimum")
        if minimum is not None and isinstance(value, int) and value < minimum:
            raise InvMMError(f"{part.name} is {value}; it must be at least {minimum}.")


def option(default: Any, help: str, **face: Any) -> Any:  # noqa: A002
    """A field with its help text; ``face`` holds what cannot be derived from its name and type: see :class:`Option`."""
    metadata = {"help": help, **face}
    return (
        field(default_factory=dict, metadata=metadata) if default is dict else field(default=default, metadata=metadata)
    )


@dataclass(frozen=True)
class Option:
    """One option as a face offers it.

    Attributes:
        name: The keyword in Python.
        annotation: Its type in Python.
        default: Its default value.
        help: What it is, in one or a few sentences.
        flag: What the command line calls it, with the dashes.
        parse: The type of one value on the command line: str, int or Path.
        repeatable: Whether the command line takes it several times, as KEY=VALUE.
        minimum: The least value of a number.
        python: What faces in Python take besides, in sentences.
    """

    name: str
    annotation: Any
    default: Any
    help: str
    flag: str
    parse: type
    repeatable: bool
    minimum: int | None
    python: str

    @property
    def metavar(self) -> str:
        """What stands for the value in the command line's help."""
        return "KEY=VALUE" if self.repeatable else {int: "N", Path: "FILE"}.get(self.parse, "NAME")

    @property
    def command_type(self) -> Any:
        """The type of the parameter of a command."""
        if self.repeatable:
            return list[str]
        return self.parse | None if self.default is None else self.parse

    @classmethod
    def of(cls, option: "Field[Any]") -> "Option":
        """The option that a field of one of the three objects describes."""
        about = option.metadata
        repeatable = option.default is MISSING
        return cls(
            name=option.name,
            annotation=option.type,
            default={} if repeatable else option.default,
            help=about["help"],
            flag=about.get("flag") or f"--{option.name.replace('_', '-')}",
            parse=about.get("parse") or (int if option.type in (int, int | None) else str),
            repeatable=repeatable,
            minimum=about.get("minimum"),
            python=about.get("python", ""),
        )


def options_of(*kinds: type[Any]) -> dict[str, Option]:
    """The options that the fields of some objects describe, by name."""
    return {option.name: Option.of(option) for kind in kinds for option in fields(kind) if "help" in option.metadata}
