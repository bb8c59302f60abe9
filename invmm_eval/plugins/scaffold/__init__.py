"""Write a new plugin: a package that installs and whose tests pass, to change step by step."""

import keyword
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from invmm_eval.errors import InvMMError, on_disk
from invmm_eval.plugins.hooks import API_VERSION

_RUN = "run --model MODEL --images IMAGES --out AUDIT"
_SCREEN = "screen --model MODEL --images IMAGES --out AUDIT"


@dataclass(frozen=True)
class _Kind:
    noun: str
    hook: str
    entry: str
    usage: str


_KINDS = {
    "backbone": _Kind("backbone", "register_backbones", "BackboneEntry", f"{_RUN} --backbone NAME"),
    "similarity": _Kind("similarity", "register_similarities", "SimilarityMaker", f"{_RUN} --similarity NAME"),
    "noise": _Kind("noise family", "register_noise_families", "NoiseFamilyMaker", f"{_RUN} --noise NAME"),
    "estimator": _Kind(
        "estimator", "register_estimators", "EstimatorMaker", f"{_RUN} --set estimators=plain-share,NAME"
    ),
    "detector": _Kind("detector", "register_detectors", "DetectorMaker", f"{_SCREEN} --detector NAME"),
    "command": _Kind("command", "register_commands", "CommandEntry", "NAME --help"),
}
KINDS = tuple(_KINDS)


def new_plugin(name: str, kind: str, parent: Path) -> Path:
    """Write the package ``name`` into a new folder of that name.

    Args:
        name: Name of the distribution, of its entry point and of its part; its module has underscores for hyphens.
        kind: One of :data:`KINDS`.
        parent: Where the folder is created.

    Returns:
        The folder.

    Raises:
        InvMMError: The name or the kind is not allowed, or the folder exists.
    """
    module = name.replace("-", "_")
    if kind not in _KINDS:
        raise InvMMError(f"There is no kind {kind!r}; choose one of {', '.join(KINDS)}.")
    if not re.fullmatch("[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or keyword.iskeyword(module):
        raise InvMMError(
            f"{name!r} is not a name for a plugin; use lower-case words joined by hyphens, as in my-model."
        )
    if find_spec(module):
        raise InvMMError(f"A module {module} is installed; choose another name than {name}.")
    folder = parent / name
    if folder.exists():
        raise InvMMError(f"{folder} exists; choose another name, or remove it.")
    with on_disk(f"The folder {folder} cannot be created"):
        folder.mkdir()
    templates = {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        f"src/{module}/__init__.py": "__init__.py",
        f"src/{module}/{kind}.py": f"{kind}.py",
        f"tests/test_{module}.py": f"test_{kind}.py",
    }
    about = _KINDS[kind]
    words = {
        "name": name,
        "module": module,
        "kind": kind,
        "noun": about.noun,
        "hook": about.hook,
        "entry": about.entry,
        "usage": about.usage.replace("NAME", name),
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
