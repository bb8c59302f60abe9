"""Flags are derived from the options of an audit; KEY=VALUE texts are read."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.main import get_command

from invmm_eval.audits.options import ALL_OPTIONS, OPTIONS, RUN_OPTIONS, SCREEN_OPTIONS, SET_OPTIONS
from invmm_eval.cli.app import app
from invmm_eval.cli.options import pairs, read_options, with_flags
from invmm_eval.errors import InvMMError
from tests.helpers.command import Invoke

OFFERED = {
    "run": RUN_OPTIONS.keys(),
    "audit": SET_OPTIONS.keys(),
    "screen": SCREEN_OPTIONS.keys(),
    "calibrate": OPTIONS.keys() - {"calibration"},
    "demo": {"recipe", "settings", "seed", "device", "batch_size"},
}


def flags(program: typer.Typer, command: str) -> dict[str, Any]:
    """The parameters of a command as the parser knows them."""
    group: Any = get_command(program)
    return {parameter.name: parameter for parameter in group.commands[command].params}


@pytest.mark.parametrize(("command", "names"), OFFERED.items())
def test_a_command_has_a_flag_for_each_option(command: str, names: Collection[str]) -> None:
    found = flags(app, command)
    assert found.keys() & ALL_OPTIONS.keys() == set(names)
    for name in names:
        option, flag = ALL_OPTIONS[name], found[name]
        assert (flag.opts, flag.multiple) == ([option.flag], option.repeatable)
        assert flag.help.removesuffix(" Repeatable.") == option.help
        assert flag.default == ([] if option.repeatable else option.default)


def test_an_option_is_changed_in_one_place() -> None:
    changed = {"seed": replace(OPTIONS["seed"], default=7, help="Another text.")}
    program = typer.Typer()

    @program.callback()
    def several_commands() -> None:
        pass

    @program.command()
    @with_flags(changed)
    def command(**options: Any) -> None:
        pass

    flag = flags(program, "command")["seed"]
    assert (flag.default, flag.help) == (7, "Another text.")


def test_flags_become_the_values_of_options() -> None:
    texts = {"settings": ["draws=4", "guidance=1,2"], "noise_options": ["rank=2"], "seed": 3}
    assert read_options(texts) == {
        "settings": {"draws": 4, "guidance": (1.0, 2.0)},
        "noise_options": {"rank": 2},
        "seed": 3,
    }


def test_every_flag_of_calibrate_arrives(invoke: Invoke, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrived: dict[str, Any] = {}

    def calibrate(*_: object, **options: Any) -> None:
        arrived.update(options)
        raise InvMMError("That is enough.")

    monkeypatch.setattr("invmm_eval.audits.held_out.calibrate", calibrate)
    values = dict.fromkeys(OFFERED["calibrate"], "3")
    values |= {name: "key=3" for name, option in OPTIONS.items() if option.repeatable} | {"settings": "draws=3"}
    flags = [part for name, value in values.items() for part in (OPTIONS[name].flag, value)]
    code, _, err = invoke("calibrate", "--model", "model", "--held-out", images, "--out", "out", *flags)
    assert code == 1
    assert err.endswith("error That is enough.\n")
    numbers = {name: OPTIONS[name].parse(3) for name in OFFERED["calibrate"]}
    pairs = {name: {"key": 3} for name, option in OPTIONS.items() if option.repeatable} | {"settings": {"draws": 3}}
    assert {name: value for name, value in arrived.items() if name in OPTIONS} == numbers | pairs


def test_pairs() -> None:
    values: dict[str, tuple[str, object]] = {
        "side": ("64", 64),
        "xi": ("1e-3", 0.001),
        "weights": ("a=b.onnx", "a=b.onnx"),
        "my_key": ("-2", -2),
        "empty": ("", ""),
        "fraction": ("3.0", 3.0),
        "hexadecimal": ("0x10", "0x10"),
        "yes": ("true", True),
        "no": ("False", False),
        "word": ("falsely", "falsely"),
    }
    found = pairs([f"{key.replace('_', '-')}={text}" for key, (text, _) in values.items()])
    assert [(key, type(value), value) for key, value in found.items()] == [
        (key, type(value), value) for key, (_, value) in values.items()
    ]
    with pytest.raises(InvMMError, match="'side' is not KEY=VALUE"):
        pairs(["side"])
