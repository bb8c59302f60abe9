"""Flags are derived from the options of an audit; KEY=VALUE texts are read."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.main import get_command

from invmm_eval.audits.options import ALL_OPTIONS, OPTIONS, RUN_OPTIONS, SCREEN_OPTIONS, SET_OPTIONS
from invmm_eval.cli.app import app
from invmm_eval.cli.options import pairs
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


@pytest.mark.parametrize("command", ["run", "audit", "screen", "calibrate"])
def test_every_flag_arrives(command: str, invoke: Invoke, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrived: dict[str, Any] = {}

    def stop(*_: object, **options: Any) -> None:
        arrived.update(options)
        raise InvMMError("That is enough.")

    for taken in ("invmm_eval.audits.held_out.calibrate", "invmm_eval.audits.request.Request.of"):
        monkeypatch.setattr(taken, stop)
    offered = {name: ALL_OPTIONS[name] for name in OFFERED[command]}
    values = {name: "key=3" if option.repeatable else "3" for name, option in offered.items()}
    values |= {"settings": "draws=3"} if "settings" in offered else {}
    flags = [part for name, value in values.items() for part in (offered[name].flag, value)]
    images_flag = "--held-out" if command == "calibrate" else "--images"
    code, _, err = invoke(command, "--model", "model", images_flag, images, "--out", "out", *flags)
    assert code == 1
    assert err.endswith("error That is enough.\n")
    expected = {name: {"key": 3} if option.repeatable else option.parse("3") for name, option in offered.items()}
    expected |= {"settings": {"draws": 3}} if "settings" in offered else {}
    assert {name: value for name, value in arrived.items() if name in offered} == expected


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
