"""The command that verifies the folder of an audit."""

import typer

from invmm_eval.cli.console import err, say
from invmm_eval.cli.publish import Folder


def verify(folder: Folder) -> None:
    """Read every file of an audit, and compare it with the SHA-256 that the run recorded."""
    from invmm_eval.audits.folder.manifest import FILE, sha256_of
    from invmm_eval.audits.folder.manifest import verify as damages
    from invmm_eval.audits.progress import Bar

    with Bar(0, doing="reading") as bar:
        found = damages(folder, on_extent=bar.resize, over=bar.over)
    for sentence in found:
        say(sentence, err)
    if found:
        say(f"Damages: {len(found):,}.", err)
        raise typer.Exit(1)
    say(f"All files of {folder} are what the run wrote. The SHA-256 of {FILE} is {sha256_of(folder / FILE)}.")
