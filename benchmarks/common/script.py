"""Command lines, tables and JSON files of the scripts, and the memory they took."""

import argparse
import json as text
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def parser(description: str | None, *, json: bool = True) -> argparse.ArgumentParser:
    """A parser that prints the module's docstring as it is, with the option ``--json``."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    if json:
        made.add_argument("--json", type=Path, help="file for the figures")
    return made


def peak() -> float:
    """The most memory that the process has had, GiB; needs Linux."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 2**20


def show(columns: Sequence[str], rows: Iterable[Iterable[Any]], *, title: str = "", width: int | None = None) -> None:
    """Print a table."""
    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*map(str, row))
    Console(width=width).print(table)


def write(path: Path | None, facts: Any) -> None:
    """Write facts as JSON, if a path was given."""
    if path:
        path.write_text(text.dumps(facts, indent=1) + "\n")
