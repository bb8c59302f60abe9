"""The command that compares two audits."""

import json
from pathlib import Path
from typing import Annotated

import typer

from invmm_eval.cli.console import out, say
from invmm_eval.cli.ending import SHOWN


def compare(
    a: Annotated[Path, typer.Argument(metavar="AUDIT_A", help="Folder of the audit of the base, or before a change.")],
    b: Annotated[Path, typer.Argument(metavar="AUDIT_B", help="Folder of the audit of the other model, or after it.")],
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a page with a figure.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Compare two audits of the same pictures: what became memorized, what no longer is, and whether by chance."""
    from invmm_eval.reports.comparison import compare as find
    from invmm_eval.reports.comparison.page import write_page
    from invmm_eval.reports.comparison.terminal import changes_table
    from invmm_eval.reports.comparison.words import paragraphs

    found = find(a, b)
    if html:
        write_page(found, html)
    if as_json:
        typer.echo(json.dumps(found.record(), indent=2, allow_nan=False))
        return
    out.print(changes_table(found, SHOWN))
    if len(found.pairs) > SHOWN:
        say(f"These are {SHOWN} of {len(found.pairs):,} pictures, those that changed first; --json prints all.")
    for name, (one, other) in found.differing.items():
        if name != "Weights":
            say(f"{name}: {one} in A, {other} in B.")
    say(found.headline)
    for paragraph in paragraphs(found):
        say(paragraph)
    if html:
        say(f"Wrote {html}.")
