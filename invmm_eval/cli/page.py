"""The commands of the web page."""

from pathlib import Path
from typing import Annotated

import typer

from invmm_eval.cli.console import hide_library_bars
from invmm_eval.cli.publish import Names, Pictures, Yes, create_or_update


def ui(
    folder: Annotated[Path | None, typer.Argument(metavar="[DIR]", help="Output folder of an audit to browse.")] = None,
) -> None:
    """Open a local web page: browse an audit, and try the reference model on your own pictures."""
    from invmm_eval.page.app import serve

    hide_library_bars()
    serve(folder)


def space(
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="[DIR]", help="Output folder of an audit that the Space shows. Its results are copied."),
    ] = None,
    out_folder: Annotated[Path, typer.Option("--out", help="Output folder of the Space.")] = Path("invmm"),
    names: Names = False,
    pictures: Pictures = False,
    push: Annotated[
        str | None, typer.Option(metavar="ORG/INVMM", help="Send it to the Hub. It is created if missing.")
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="Create a Space that everybody can see.")] = False,
    yes: Yes = False,
) -> None:
    """Write a Space: the web page, and the metric for evaluate.load("org/invmm")."""
    from invmm_eval.page.space import check_name, write_space
    from invmm_eval.reports.findings import find
    from invmm_eval.reports.hub import Repository

    if push:
        check_name(push)
    findings = find(folder).public(names=names) if folder else None
    files = write_space(out_folder, findings, pictures=pictures)
    typer.echo(f"Wrote the Space to {out_folder}.")
    if push:
        repository = Repository.find(push, "space", missing_ok=True)
        create_or_update(repository, files, "InvMM: the page and the metric", public=public, yes=yes)
