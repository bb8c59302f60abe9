"""What pages of one file have in common: their frame, their style, and what their Content-Security-Policy allows."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from invmm_eval.reports.html.embed import allowed, png
from invmm_eval.reports.numbers import capital

_ENVIRONMENT = Environment(loader=PackageLoader("invmm_eval.reports", ""), autoescape=True, trim_blocks=True)
_ENVIRONMENT.filters |= {"capital": capital, "png": png}


def parts(template: str, *, style: str = "", script: str = "", **values: Any) -> Iterator[str]:
    """The parts of a page, which loads nothing and runs its own script alone.

    Args:
        template: A file below ``reports`` that extends ``html/base.html``.
        style: Rules beside those of all pages.
        script: The script of the page, if it has one.
        **values: What the template takes, and ``headline``, ``limits`` and ``settings`` for its frame.
    """
    whole = (Path(__file__).parent / "page.css").read_text("utf-8") + style
    policy = f"default-src 'none'; img-src data:; style-src {allowed(whole)}"
    if script:
        policy += f"; script-src {allowed(script)}"
    page = _ENVIRONMENT.get_template(template)
    return page.generate(style=Markup(whole), script=Markup(script), policy=policy, **values)
