"""Commands about plugins, and the registration of the metric."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table

from invmm_eval.cli.console import out, say


def plugins(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the installed plugins and what each provides. Broken plugins are reported on stderr."""
    from invmm_eval.plugins.host import host

    if as_json:
        listing = {"plugins": host().plugins, "broken": host().broken}
        typer.echo(json.dumps(listing, default=dataclasses.asdict, indent=2))
        return
    table = Table("plugin", "distribution", "version", Column("provides", overflow="fold"))
    for plugin in host().plugins:
        gives = (f"{kind.replace('_', ' ')}: {', '.join(names)}" for kind, names in plugin.gives.items() if names)
        table.add_row(plugin.name, plugin.distribution, plugin.version, "\n".join(gives))
    out.print(table)


def new_plugin(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="Name of the package and of its part: lower-case words joined by hyphens."),
    ],
    kind: Annotated[
        str, typer.Option(metavar="KIND", help="backbone, similarity, noise, estimator, detector or command.")
    ],
) -> None:
    """Write a package with a working example plugin and its tests, to start your own from."""
    from invmm_eval.plugins.scaffold import new_plugin as write

    folder = write(name, kind, Path())
    say(f'Wrote {folder}. To try it: cd {folder} && pip install -e ".[test]" && pytest')
    say(f"It works as it is. Change {folder / 'src' / name.replace('-', '_') / kind}.py step by step.")


def register(
    remove: Annotated[bool, typer.Option("--remove", help="Remove the registration.")] = False,
) -> None:
    """Make evaluate.load("invmm") find the metric by its bare name."""
    from invmm_eval.metric.registration import register as write
    from invmm_eval.metric.registration import unregister

    if remove:
        removed = unregister()
        say(f"Removed {removed}." if removed else "The metric was not registered.")
    else:
        say(f'evaluate.load("invmm") now finds {write()}')
        say(
            "evaluate asks the Hub first. Where there is no network, set HF_EVALUATE_OFFLINE=1 (HF_HUB_OFFLINE=1 has "
            "no effect here)."
        )
