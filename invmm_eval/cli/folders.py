"""Commands that read the folders of finished audits: two to compare, shards to put together, one to verify."""

import json
from pathlib import Path
from typing import Annotated

import typer

from invmm_eval.cli.console import err, out, say
from invmm_eval.cli.ending import SHOWN
from invmm_eval.cli.options import Folder


def compare(
    a: Annotated[Path, typer.Argument(metavar="AUDIT_A", help="Audit of the base, or before a change.")],
    b: Annotated[Path, typer.Argument(metavar="AUDIT_B", help="Audit of the other model, or after it.")],
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write a page with a figure, and each image beside its samples."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Compare two audits of the same images: what became memorized, what no longer is, and whether by chance."""
    from invmm_eval.reports.comparison import compare as find
    from invmm_eval.reports.comparison.page import write_page
    from invmm_eval.reports.comparison.terminal import ChangesTable
    from invmm_eval.reports.comparison.words import paragraphs

    found = find(a, b)
    if html:
        write_page(found, html)
    if as_json:
        typer.echo(json.dumps(found.record(), indent=2, allow_nan=False))
        return
    out.print(ChangesTable(found, SHOWN))
    if len(found.pairs) > SHOWN:
        say(f"These are {SHOWN} of {len(found.pairs):,} images, those that changed first; --json prints all.")
    for name, (one, other) in found.differing.items():
        if name != "Weights":
            say(f"{name}: {one} in A, {other} in B.")
    say(found.headline)
    for paragraph in paragraphs(found):
        say(paragraph)
    say(f"Wrote {html}." if html else "To see each image beside its samples of both, with intervals, add --html FILE.")


def merge(
    out_folder: Annotated[Path, typer.Argument(metavar="OUT", help="Output folder, new or empty.")],
    parts: Annotated[list[Path], typer.Argument(metavar="PART", help="The folder of each shard.")],
) -> None:
    """Put the folders of all shards of a set together, as if one run had written them."""
    from invmm_eval.audits.merge import merge as write

    images = write(out_folder, parts)
    say(f"Merged {len(parts):,} shards of {images.images:,} images into {out_folder}.")
    if (out_folder / "config.json").exists():
        say(f"To write a report: invmm-eval report {out_folder}")
    else:
        say(f"To search the suspicious ones, run invmm-eval audit --out {out_folder} with the same options.")


def verify(folder: Folder) -> None:
    """Read every file of an audit, and compare it with the SHA-256 that the run recorded."""
    from invmm_eval.audits.folder.manifest import FILE, sha256_of
    from invmm_eval.audits.folder.manifest import verify as damages

    found = damages(folder)
    for sentence in found:
        say(sentence, err)
    if found:
        say(f"Damages: {len(found):,}.", err)
        raise typer.Exit(1)
    say(f"All files of {folder} are what the run wrote. The SHA-256 of {FILE} is {sha256_of(folder / FILE)}.")
