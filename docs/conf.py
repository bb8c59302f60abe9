"""The documentation site, which `make docs` builds.

README.md is its first page, and the table there under "Documentation" is its table of contents: a page that is missing
from the table is in no toctree, of which Sphinx warns, and warnings are errors. Where a page has a comment such as
``<!-- reference: invmm_eval -->``, which a plain repository host does not show, the site has the docstrings.
"""

import re
import shutil
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import version as installed
from inspect import isclass, isfunction, ismodule
from pkgutil import resolve_name

import typer
from docutils.nodes import Element
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer
from typer.cli import get_docs_for_click

import invmm_eval
from invmm_eval.cli.app import app as program

project = "invmm-eval"
author = "the authors of invmm-eval"
release = version = installed("invmm-eval")
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
]

root_doc = "README"
include_patterns = ["*.md", "docs/**.md", "docs/*.ipynb", "plugins/*/README.md", "invmm_eval/reference/README.md"]
exclude_patterns = [".*", "build", "demo", "dist", "runs"]

myst_heading_anchors = 4
smartquotes = False
nb_execution_mode = "off"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autosummary_generate = False
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
nitpicky = True
linkcheck_ignore = ["FILE:"]  # options of docstrings, such as FILE:WEIGHT, look like links
html_theme = "furo"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_title = f"invmm-eval {release}"
html_copy_source = False
html_show_copyright = False


def contents(readme: str) -> Iterator[str]:
    """The toctrees: one for each row of the table under "Documentation"."""
    table = readme.partition("\n## Documentation\n")[2].partition("\n## ")[0]
    for caption, cells in re.findall(r"^\| ([^|]+?) \| (.+) \|$", table, re.M):
        pages = re.findall(r"\]\(([^):#]+\.(?:md|ipynb))\)", cells)
        yield "\n".join(["```{toctree}", f":caption: {caption.capitalize()}", ":hidden:", "", *pages, "```", ""])


def reference(module: str, names: list[str]) -> str:
    """The docstrings of a module's public names, after a table of them; those of invmm_eval are on its own page."""
    found = import_module(module)
    if not names:
        elsewhere = set(invmm_eval.__all__) if found is not invmm_eval else set()
        names = [name for name in found.__all__ if name not in elsewhere and not ismodule(getattr(found, name))]
    values = {name: getattr(found, name) for name in names}
    described = {name: value for name, value in values.items() if isclass(value) or isfunction(value)}
    lines = [
        f".. currentmodule:: {module}",
        "",
        ".. autosummary::",
        "   :signatures: none",
        "",
        *(f"   {name}" for name in described),
        "",
    ]
    for name, value in described.items():
        lines += [f".. autoclass:: {name}", "   :members:", ""] if isclass(value) else [f".. autofunction:: {name}", ""]
    for name in sorted(values.keys() - described.keys()):
        home = found._HOMES[name].partition(":")[0]
        text = ModuleAnalyzer.for_module(home).find_attr_docs().get(("", name), [])
        lines += [f".. py:data:: {name}", "", *(f"   {line}" for line in text), ""]
    return "\n".join(["```{eval-rst}", *lines, "```"])


def commands(name: str) -> str:
    """The help of each command, which is plain text."""
    command = typer.main.get_command(program)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name=name)
    text = re.sub(r"\*\*Commands\*\*:\n\n(\* .*\n)+", "", text.partition("\n")[2])
    return re.sub(r"(?<=`: )(.*)$", lambda found: re.sub(r"([\\*_<\[`])", r"\\\1", found[1]), text, flags=re.M)


def anchors(page: str, text: str) -> str:
    """Anchors of HTML as targets of Sphinx, whose names hold in all pages, and the links to them in their page."""
    for name in re.findall(r'^<a id="(.+)"></a>$', text, re.M):
        target = f"{page}-{name}".replace("/", "-")
        text = text.replace(f'<a id="{name}"></a>', f"({target})=").replace(f"](#{name})", f"](#{target})")
    return text


def extend(_: Sphinx, page: str, source: list[str]) -> None:
    """Give the first page its table of contents, and the reference its docstrings."""
    text = anchors(page, source[0])
    if page == root_doc:
        text = "\n".join([text, *contents(text)])
    text = re.sub(
        r"^<!-- reference: (\S+)(.*) -->$", lambda found: reference(found[1], found[2].split()), text, flags=re.M
    )
    source[0] = re.sub(r"^<!-- commands: (\S+) -->$", lambda found: commands(found[1]), text, flags=re.M)


def unlinked(_: Sphinx, __: object, node: pending_xref, shown: Element) -> Element | None:
    """Names of other libraries, and those that are not public, are not linked. Those of the package must exist."""
    name = node["reftarget"]
    if node.get("refdomain") != "py":
        return None
    try:
        if name.startswith("invmm_eval."):
            resolve_name(name)
    except (AttributeError, ImportError):
        return None
    return shown


def finish(app: Sphinx, error: Exception | None) -> None:
    """Let the address of the site lead to the first page."""
    if error is None and app.builder.name == "html":
        shutil.copyfile(app.outdir / f"{root_doc}.html", app.outdir / "index.html")


def setup(app: Sphinx) -> None:
    """Connect these to Sphinx."""
    app.connect("source-read", extend)
    app.connect("missing-reference", unlinked)
    app.connect("build-finished", finish)
