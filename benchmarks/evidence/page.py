"""The page, rendered from the facts in ``evidence.json`` and from nothing else."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

TEMPLATE = Path(__file__).with_name("page.md")


def verdict(held: bool | None) -> str:
    """In a word or two."""
    return {True: "held", False: "did not hold", None: "reported"}[held]


def render(facts: Mapping[str, Any]) -> str:
    """The page of what ``docs/lab/evidence/evidence.json`` holds."""
    environment = jinja2.Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        autoescape=False,
    )
    return environment.from_string(TEMPLATE.read_text("utf-8")).render(**facts, verdict=verdict)


def write(facts: Mapping[str, Any], docs: Path) -> Path:
    """Write the facts and their page; returns the path of the page."""
    (docs / "evidence").mkdir(parents=True, exist_ok=True)
    (docs / "evidence" / "evidence.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    page = docs / "evidence.md"
    page.write_text(render(facts), encoding="utf-8")
    return page
