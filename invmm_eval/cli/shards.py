"""The command that puts the folders of shards together."""

from pathlib import Path
from typing import Annotated

import typer

from invmm_eval.cli.console import say


def merge(
    out_folder: Annotated[Path, typer.Argument(metavar="OUT", help="Output folder, new or empty.")],
    parts: Annotated[list[Path], typer.Argument(metavar="PART...", help="The folder of each shard.")],
) -> None:
    """Put the folders of all shards of a set together, as if one run had written them."""
    from invmm_eval.audits.merge import merge as write

    images = write(out_folder, parts)
    say(f"Merged {len(parts):,} shards of {images.images:,} images into {out_folder}.")
    if (out_folder / "config.json").exists():
        say(f"To write a report: invmm-eval report {out_folder}")
    else:
        say(f"To search the suspicious ones, run invmm-eval audit --out {out_folder} with the same options.")
