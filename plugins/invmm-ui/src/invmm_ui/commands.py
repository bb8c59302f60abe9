"""The commands of the web page."""

from pathlib import Path
from typing import Annotated

import typer

from invmm_eval.plugin import create_or_update, find, hide_library_bars


def ui(
    folder: Annotated[Path | None, typer.Argument(metavar="[DIR]", help="Output folder of an audit to browse.")] = None,
    model: Annotated[
        str,
        typer.Option(metavar="MODEL", help="Model to try: folder written by save_pretrained, Hub id, or reference."),
    ] = "reference",
    recipe: Annotated[str, typer.Option(metavar="NAME", help="Recipe of the searches on the page.")] = "fast",
) -> None:
    """Open a local web page: browse an audit, and try a model on your own pictures."""
    from invmm_ui.app import serve

    hide_library_bars()
    serve(folder, model, recipe)


def space(
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="[DIR]", help="Output folder of an audit that the Space shows. Its results are copied."),
    ] = None,
    out_folder: Annotated[Path, typer.Option("--out", help="Output folder of the Space.")] = Path("invmm"),
    names: Annotated[
        bool, typer.Option("--names", help="Publish names, prompts and errors of images instead of their digests.")
    ] = False,
    pictures: Annotated[
        bool, typer.Option("--pictures", help="Publish images and samples, which may be private.")
    ] = False,
    push: Annotated[
        str | None, typer.Option(metavar="ORG/INVMM", help="Send it to the Hub. It is created if missing.")
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="Create a Space that everybody can see.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Send the files. Without it, the changes are only shown.")] = False,
) -> None:
    """Write a Space: the web page, and the metric for evaluate.load("org/invmm")."""
    from invmm_ui.space import check_name, write_space

    if push:
        check_name(push)
    findings = find(folder).public(names=names) if folder else None
    files = write_space(out_folder, findings, pictures=pictures)
    typer.echo(f"Wrote the Space to {out_folder}.")
    if push:
        diff = out_folder.with_name(f"{out_folder.name}.diff")
        create_or_update(push, "space", files, "InvMM: the page and the metric", diff, public=public, yes=yes)
