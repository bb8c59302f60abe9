"""The command that tries the package on the reference model."""

from pathlib import Path
from typing import Annotated, Any

import typer

from invmm_eval.cli.console import hide_library_bars
from invmm_eval.cli.options import read_options, with_flags


@with_flags({"recipe", "settings", "seed", "device", "batch_size"}, recipe="fast")
def demo(
    out_folder: Annotated[Path, typer.Option("--out", metavar="DIR", help="Output folder.")] = Path("demo"),
    quick: Annotated[bool, typer.Option("--quick", help="Audit 7 pictures instead of 544.")] = False,
    **options: Any,
) -> None:
    """Audit the reference model, for which it is known which images were repeated in training."""
    from invmm_eval.cli.demo import run_demo

    hide_library_bars()
    run_demo(out_folder, quick=quick, **read_options(options))
