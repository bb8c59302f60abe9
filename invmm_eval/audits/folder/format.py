"""The format of an audit's folder: its number, how older ones are read, and when two configs give the same values."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from invmm_eval.audits.folder.files import damaged
from invmm_eval.errors import InvMMError
from invmm_eval.recipe import Recipe
from invmm_eval.search.upgrade import upgraded_record

FORMAT = 4
"""Written to config.json and to each row. Format 1 had no number; rows up to 2 had what ``Result.row`` leaves out, and
those of 3 had prompts and no verdict."""
SAME_VALUES_SINCE = "0.1.0"
"""The first version of invmm-eval that gives the same values as this one, at equal config and seed."""
_SHOWN = 3
"""At most this many differing settings are named."""
_NOW_BUILT_IN = ("invmm-sd3", "invmm-sdxl", "invmm-flux", "invmm-pixart")
"""Packages whose backbones this package has, with the same values."""


def upgraded_config(config: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """A config of this format or of an older one, with defaults for the keys that it lacks.

    Raises:
        InvMMError: The format is newer than this version of invmm-eval reads.
    """
    versions = config.get("versions", {})
    if not isinstance(versions, Mapping) or not all(isinstance(version, str) for version in versions.values()):
        raise damaged(path)
    recipe = config.get("recipe")
    if not isinstance(recipe, Mapping | None):
        raise damaged(path)
    try:
        _check_format(config, path, versions.get("invmm-eval"))
    except ValueError as error:
        raise damaged(path) from error
    upgraded = {**config, "format": FORMAT}
    if recipe is not None:
        try:
            upgraded["recipe"] = as_json(asdict(Recipe.from_record(recipe)))
        except InvMMError as error:
            raise InvMMError(f"{path} cannot be read: {error} If it is damaged, choose another folder.") from error
        if recipe.get("averaging"):  # no longer a setting: such an audit is reported on, and not resumed
            upgraded["recipe"]["averaging"] = recipe["averaging"]
    return upgraded


def upgraded_row(row: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """A row of this format or of an older one, with defaults for the keys that it lacks.

    Raises:
        InvMMError: The format is newer than this version of invmm-eval reads.
    """
    _check_format(row, path, None)
    return {"sha256": None, **upgraded_record(row)}


def _check_format(record: Mapping[str, Any], path: Path, written_by: str | None) -> None:
    number = record.get("format", 1)
    if not isinstance(number, int) or number < 1:
        raise ValueError(number)
    if number > FORMAT:
        by = f", written by invmm-eval {written_by}" if written_by else ""
        raise InvMMError(
            f"{path} has format {number}{by}; this version reads formats up to {FORMAT}. Upgrade invmm-eval."
        )


def differences(stored: Mapping[str, Any], requested: Mapping[str, Any]) -> list[str]:
    """What makes the values of two configs differ, one phrase per setting, with both of its values.

    The path of a model does not count where its weights are known to be the same, nor does the name of a recipe or the
    version of invmm-eval itself, if both versions give the same values, nor what a backbone proved. A setting that is
    None is not set.
    """
    one, other = dict(settings_of(stored)), dict(settings_of(requested))
    ignored = {"format", "recipe.name", "backbone.proved", *(f"versions.{package}" for package in _NOW_BUILT_IN)}
    if stored.get("weights") and stored.get("weights") == requested.get("weights"):
        ignored.add("model")
    versions = one.get("versions.invmm-eval"), other.get("versions.invmm-eval")
    if all(version and _number(version) >= _number(SAME_VALUES_SINCE) for version in versions):
        ignored.add("versions.invmm-eval")
    return [
        f"{key} is {_shown(one, key)} there and {_shown(other, key)} here"
        for key in differing(stored, requested)
        if key not in ignored
    ]


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The dotted names of the settings in which two configs differ, sorted. A setting that is None is not set."""
    first, second = dict(settings_of(one)), dict(settings_of(other))
    return sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))


def require_same(folder: Path, what: str, stored: Mapping[str, Any], requested: Mapping[str, Any]) -> None:
    """Check that what a folder holds is resumed with a config that gives the same values.

    Raises:
        InvMMError: The configs differ, or they do not say which model they are of.
    """
    if differing := differences(stored, requested):
        more = f" (and {len(differing) - _SHOWN} more)" if len(differing) > _SHOWN else ""
        raise InvMMError(
            f"{folder} holds {what} with another config: {'; '.join(differing[:_SHOWN])}{more}. Choose another folder, "
            "or use its settings."
        )
    if requested.get("weights", ...) is None:
        raise InvMMError(
            f"{folder} holds {what} of a model whose identity is not known, so its values may be those of another "
            "model; choose another folder."
        )


def settings_of(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The settings of a config by their dotted names."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{key}", part) for key, part in value.items())
        else:
            yield name, value


def _shown(settings: Mapping[str, Any], key: str) -> str:
    return json.dumps(settings[key]) if key in settings else "not set"


def _number(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)[:3]))


def as_json(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config as JSON holds it.

    Raises:
        InvMMError: JSON cannot hold it.
    """
    try:
        return dict(json.loads(json.dumps(config, allow_nan=False)))
    except (TypeError, ValueError) as error:
        raise InvMMError(
            f"The audit cannot be kept in a folder, because JSON cannot hold its config: {error}."
        ) from error
