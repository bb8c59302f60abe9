"""What a run prints when it ends: the table, the verdicts, what failed and why, what to do next; or what it costs."""

from collections.abc import Iterator
from enum import StrEnum
from heapq import nsmallest
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from invmm_eval.cli.console import err, out, print_error, say

if TYPE_CHECKING:
    from invmm_eval.audits.request import Request
    from invmm_eval.search.result import Result

SHOWN = 100
"""Maximum number of images in the table."""

FOUND = 3
"""Exit code of a run that found what ``--fail-on`` names."""


class FailOn(StrEnum):
    """What makes a run end with :data:`FOUND`."""

    MEMORIZED = "memorized"
    REPLICATED = "replicated"


def say_price(request: "Request", **phases: bool) -> None:
    """Print what a request will cost; ``phases`` as :func:`~invmm_eval.audits.price.price` takes it."""
    from invmm_eval.audits.price import price
    from invmm_eval.reports.price import lines

    for line in lines(price(request, **phases)):
        say(line)


def end(folder: Path, *, debug: bool, fail_on: FailOn | None = None) -> None:
    """Print what an audit found, with ``debug`` the first traceback.

    Raises:
        typer.Exit: All images failed, or one is what ``fail_on`` names.
    """
    from invmm_eval.audits.folder import read
    from invmm_eval.audits.results import NO_SHARE, share_is_known
    from invmm_eval.reports.failures import by_reason, in_one_sentence, listed
    from invmm_eval.reports.terminal import ResultsTable
    from invmm_eval.reports.wording import SEARCHED, counted
    from invmm_eval.search.result import rank
    from invmm_eval.search.status import Verdict

    audit = read(folder)
    progress = audit.progress
    of: dict[Verdict, list[str]] = {verdict: [] for verdict in Verdict}
    told = False

    def results() -> "Iterator[Result]":
        nonlocal told
        for result in audit.results():
            told = told or share_is_known([result])
            of[result.verdict].append(result.name)
            yield result

    shown = nsmallest(SHOWN, results(), key=rank)
    descriptions = audit.config.get("estimators", {})
    out.print(ResultsTable(shown, describe=lambda name: descriptions.get(name, {})))
    if len(audit.rows) > SHOWN:
        say(f"These are the {SHOWN} most memorized of {len(audit.rows):,} images.")
    say(counted({verdict: len(names) for verdict, names in of.items()}))
    if progress.done and not told:
        say(NO_SHARE)
    if audit.config["backbone"].get("prompt_mode") == "soft":
        say(SEARCHED)
    failures = by_reason(audit.rows)
    replicated = of[Verdict.MEMORIZED] + of[Verdict.REPLICABLE]
    if progress.done:
        for line in listed(failures):
            say(line)
    say(f"Results are in {folder}. To write a report: invmm-eval report {folder}")
    if failures:
        say("The same command measures the failed images again, and no others.")
    tracebacks = [row["traceback"] for group in failures for row in group if row.get("traceback")]
    if tracebacks and debug:
        say(tracebacks[0], err)
    elif tracebacks:
        say(f"Tracebacks are in {folder / 'results.jsonl'}; with --debug the same command prints the first one.", err)
    if failures and not progress.done:
        print_error(in_one_sentence(failures))
        raise typer.Exit(1)
    found = {None: [], FailOn.REPLICATED: replicated, FailOn.MEMORIZED: of[Verdict.MEMORIZED]}[fail_on]
    if found:
        print_error(f"--fail-on {fail_on}: {len(found):,} of {len(audit.rows):,} images, such as {found[0]!r}.")
        raise typer.Exit(FOUND)
    if fail_on and failures:
        count = sum(map(len, failures))
        print_error(f"--fail-on {fail_on}: {count:,} of {len(audit.rows):,} images could not be measured.")
        raise typer.Exit(1)
