"""The names that a module exports for use from elsewhere, imported when they are used.

They are those that its ``if TYPE_CHECKING:`` block imports: type checkers and this package read one list.
"""

import ast
from collections.abc import Mapping
from pathlib import Path
from pkgutil import resolve_name
from typing import Any


def exported(file: str) -> dict[str, str]:
    """The names that the block of a module's file imports, each with where it is: ``module:name``, or ``module:``."""
    [block] = [node for node in ast.parse(Path(file).read_text("utf-8")).body if isinstance(node, ast.If)]
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    return {
        name.name: f"invmm_eval.{name.name}:" if node.module == "invmm_eval" else f"{node.module}:{name.name}"
        for node in imports
        for name in node.names
    }


def imported(name: str, homes: Mapping[str, str], module: str) -> Any:
    """What the ``__getattr__`` of a module returns.

    Raises:
        AttributeError: The module does not export it.
    """
    if name not in homes:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    return resolve_name(homes[name])
