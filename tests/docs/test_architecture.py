"""The layers of docs/architecture.md are those of the package."""

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "invmm_eval"
TABLE = re.findall(r"^\| ((?:`\w+` ?)+)\|", (ROOT / "docs" / "architecture.md").read_text("utf-8"), re.M)
LAYERS = [re.findall(r"`(\w+)`", row) for row in reversed(TABLE)]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
MODULES = {
    ".".join(("invmm_eval", *file.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): file
    for file in PACKAGE.rglob("*.py")
}


def imports(module: str) -> Iterator[str]:
    """The modules of the package that a module imports anywhere: in functions and for type checks too."""
    for node in ast.walk(ast.parse(MODULES[module].read_text("utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [
                f"{node.module}.{name.name}" if f"{node.module}.{name.name}" in MODULES else node.module
                for name in node.names
            ]
        elif isinstance(node, ast.Import):
            names = [name.name for name in node.names]
        yield from (name for name in names if name in MODULES)


def layer(module: str) -> str:
    """The name in the table that a module belongs to."""
    return module.split(".")[1] if "." in module else "__init__"


def test_the_table_shows_the_folder() -> None:
    shown = {path.stem for path in PACKAGE.iterdir() if path.name not in ("__pycache__", "py.typed", ".agents")}
    assert sorted(RANK) == sorted(shown)


def test_imports_point_down() -> None:
    wrong = [
        (module, imported)
        for module in MODULES
        for imported in imports(module)
        if layer(module) != layer(imported) and RANK[layer(imported)] >= RANK[layer(module)]
    ]
    assert not wrong


def test_no_module_imports_itself_by_a_detour() -> None:
    graph = {module: {name for name in imports(module) if name != module} for module in MODULES}
    list(TopologicalSorter(graph).static_order())


def test_files_are_short() -> None:
    assert not [name for name, file in MODULES.items() if len(file.read_text("utf-8").splitlines()) > 350]
