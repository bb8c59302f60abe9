"""Plugins import from the facade alone, so that the modules of the core can move."""

import ast
from pathlib import Path

import pytest

from invmm_eval.plugins.scaffold import KINDS, new_plugin

PACKAGES = sorted(file.parent for file in (Path(__file__).parents[2] / "plugins").glob("*/pyproject.toml"))


def imports_of_the_core(source: str) -> set[str]:
    """Every module of the core that the source imports."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {module for module in found if module.partition(".")[0] == "invmm_eval"}


def test_other_imports_are_found() -> None:
    source = (
        "import invmm_eval.models.text\ndef f():\n    from invmm_eval import audit\n    import torch, invmm_evaluation"
    )
    assert imports_of_the_core(source) == {"invmm_eval.models.text", "invmm_eval"}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_the_packages_import_from_the_facade_alone(package: Path) -> None:
    sources = list((package / "src").rglob("*.py"))
    assert sources
    assert set().union(*(imports_of_the_core(file.read_text("utf-8")) for file in sources)) == {"invmm_eval.plugin"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_plugin_imports_from_the_facade_alone(kind: str, tmp_path: Path) -> None:
    folder = new_plugin("my-plugin", kind, tmp_path)
    sources = [file.read_text("utf-8") for file in (folder / "src").rglob("*.py")]
    assert len(sources) == 2
    assert set().union(*map(imports_of_the_core, sources)) == {"invmm_eval.plugin"}
    [test] = [file.read_text("utf-8") for file in (folder / "tests").rglob("*.py")]
    assert imports_of_the_core(test) <= {"invmm_eval.plugin", "invmm_eval.testing", "invmm_eval.testing.tiny"}
