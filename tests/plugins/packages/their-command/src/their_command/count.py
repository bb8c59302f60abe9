"""The command itself."""

from pathlib import Path
from typing import Annotated

import typer

from invmm_eval.plugin import find


def count_images(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Output folder of an audit.")],
) -> None:
    """Count the images of an audit that have a result."""
    typer.echo(f"{len(find(folder).results)} images")
