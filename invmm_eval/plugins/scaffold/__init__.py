"""A new plugin as a package that installs and whose tests pass: something to change step by step."""

import keyword
import re
from importlib.util import find_spec
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from invmm_eval.errors import InvMMError
from invmm_eval.plugins.hooks import API_VERSION

KINDS = ("backbone", "similarity", "noise")


def new_plugin(name: str, kind: str, parent: Path) -> Path:
    """Write the package ``name`` into a new folder of that name.

    Args:
        name: Of the distribution, of its entry point and of the part it gives; with underscores, of its module.
        kind: ``backbone``, ``similarity`` or ``noise``.
        parent: Where the folder is made.

    Returns:
        The folder.

    Raises:
        InvMMError: The name or the kind will not do, or there is such a folder already.
    """
    module = name.replace("-", "_")
    if kind not in KINDS:
        raise InvMMError(f"There is no kind {kind!r}; take one of {', '.join(KINDS)}.")
    if not re.fullmatch("[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or keyword.iskeyword(module):
        raise InvMMError(f"{name!r} is no name for a plugin; take lower-case words with hyphens between: my-model.")
    if find_spec(module):
        raise InvMMError(f"A module {module} is installed already; choose another name than {name}.")
    folder = parent / name
    try:
        folder.mkdir()
    except FileExistsError as error:
        raise InvMMError(f"{folder} is there already; take another name, or remove it.") from error
    except OSError as error:
        raise InvMMError(f"The folder {folder} cannot be made: {error.strerror}.") from error
    templates = {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        f"src/{module}/__init__.py": "__init__.py",
        f"src/{module}/{kind}.py": f"{kind}.py",
        f"tests/test_{module}.py": f"test_{kind}.py",
    }
    words = {
        "name": name,
        "module": module,
        "kind": kind,
        "class_name": "".join(word.capitalize() for word in name.split("-")),
        "api_version": API_VERSION,
    }
    environment = Environment(
        loader=PackageLoader("invmm_eval.plugins.scaffold", "template"),
        keep_trailing_newline=True,
        trim_blocks=True,
        undefined=StrictUndefined,
    )
    for file, template in templates.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(environment.get_template(f"{template}.jinja").render(words), encoding="utf-8")
    (folder / "src" / module / "py.typed").touch()
    return folder
