"""Commands that write reports of an audit, and publish them on the Hub."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from invmm_eval.cli.console import err, out, printable, say
from invmm_eval.cli.options import Folder
from invmm_eval.errors import on_disk

if TYPE_CHECKING:
    from invmm_eval.reports.hub import Content, Kind, Repository

Names = Annotated[
    bool, typer.Option("--names", help="Publish names, prompts and errors of images instead of their digests.")
]
Pictures = Annotated[bool, typer.Option("--pictures", help="Publish images and samples, which may be private.")]
LINES = 60
"""Maximum number of lines of a change that are shown on a terminal."""
Yes = Annotated[bool, typer.Option("--yes", help="Send the files. Without it, the changes are only shown.")]


def report(
    folder: Folder,
    out_file: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Output file. By default report.FORMAT in DIR.")
    ] = None,
    form: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="html: report; png, svg: figure; csv, parquet: table.")
    ] = "html",
) -> None:
    """Write the report of an audit as one HTML file, or only its figure or table."""
    from invmm_eval.reports import report as write

    say(f"Wrote {write(folder, out_file, form)}.")


def card(
    folder: Folder,
    model_card: Annotated[Path, typer.Option(metavar="FILE", help="The model's README.md. It is created if missing.")],
    names: Names = False,
    pictures: Pictures = False,
    dataset: Annotated[
        str | None,
        typer.Option(metavar="ORG/DATASET", help="Dataset of the images or results, written to .eval_results."),
    ] = None,
    push: Annotated[
        str | None, typer.Option(metavar="ORG/MODEL", help="Open a pull request with the audit for a model's card.")
    ] = None,
    yes: Yes = False,
) -> None:
    """Write an audit into a model card, and propose it on the Hub."""
    from invmm_eval.reports.card import addition
    from invmm_eval.reports.findings import find

    added = addition(find(folder).public(names=names), pictures=pictures, dataset=dataset)
    added.save(model_card)
    say(f"Wrote the audit into {model_card}.")
    if not push:
        say("To propose it on the Hub, add --push ORG/MODEL; it shows the changes first.")
    else:
        repository = look_up(push, "model", yes=yes)
        before = repository.read("README.md") if repository.head else model_card.read_bytes()
        files = {"README.md": added.to(before or b""), **added.files}
        message = "Add a memorization audit (InvMM)"
        send(repository, files, message, folder / "card.diff", yes=yes, pull_request=True)


def push(
    folder: Folder,
    repository: Annotated[
        str, typer.Argument(metavar="ORG/DATASET", help="Dataset on the Hub. It is created if missing.")
    ],
    names: Names = False,
    pictures: Pictures = False,
    public: Annotated[bool, typer.Option("--public", help="Create a dataset that everybody can see.")] = False,
    yes: Yes = False,
) -> None:
    """Publish the results of an audit as a dataset on the Hub."""
    from invmm_eval.reports.dataset import write_dataset
    from invmm_eval.reports.findings import find

    files = write_dataset(find(folder).public(names=names), folder / "dataset", pictures=pictures)
    say(f"Wrote the dataset to {folder / 'dataset'}.")
    message = "Results of a memorization audit (InvMM)"
    create_or_update(repository, "dataset", files, message, folder / "push.diff", public=public, yes=yes)


def create_or_update(
    name: str, kind: "Kind", files: "Mapping[str, Content]", message: str, diff: Path, *, public: bool, yes: bool
) -> None:
    """Print who can see a repository, which is created if it is missing, and send files to it with :func:`send`."""
    repository = look_up(name, kind, yes=yes, missing_ok=True)
    seen = "private" if (repository.private if repository.head else not public) else "public"
    say(f"On the Hub {repository.name} {'is' if repository.head else 'will be'} {seen}.")
    send(repository, files, message, diff, yes=yes, private=not public)


def look_up(name: str, kind: "Kind", *, yes: bool, missing_ok: bool = False) -> "Repository":
    """A repository on the Hub. Where the Hub cannot be reached and nothing is to be sent, one without files.

    Raises:
        InvMMError: The Hub refuses, has no such repository, or cannot be reached although files are to be sent.
    """
    from invmm_eval.reports.hub import Repository, UnreachableError

    try:
        return Repository.find(name, kind, missing_ok=missing_ok)
    except UnreachableError as error:
        if yes:
            raise
        say(f"{error} Until then, all of each file is shown.", err)
        return Repository(name, kind, None)


def send(
    repository: "Repository", files: "Mapping[str, Content]", message: str, diff: Path, *, yes: bool, **how: bool
) -> None:
    """Send files to the Hub, or show what would change there and write it to the file ``diff``."""
    if yes:
        say(repository.send(files, message, **how) or f"{repository.name} is up to date.")
        return
    changes = repository.diff(files)
    lines = printable(changes).splitlines(keepends=True)
    shown = LINES if out.is_terminal else len(lines)
    typer.echo("".join(lines[:shown]) or f"{repository.name} is up to date.\n", nl=False)
    if changes:
        with on_disk(f"The changes cannot be written to {diff}"):
            diff.write_text(changes, encoding="utf-8")
        more = f"{len(lines) - shown:,} more lines are" if len(lines) > shown else "The same is"
        say(f"{more} in {diff}.")
    say("Nothing was sent. Add --yes to send it.")
