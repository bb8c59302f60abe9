"""The names that the package and its facade for plugins export."""

import ast
import inspect
import pkgutil
from types import ModuleType

import pytest

import invmm_eval
from invmm_eval import plugin
from tests.helpers.command import python

FACADES = pytest.mark.parametrize("facade", [invmm_eval, plugin])


def test_no_name_is_that_of_a_module() -> None:
    """Importing a module binds its name in the package, which would hide a function of that name."""
    modules = {module.name for module in pkgutil.iter_modules(invmm_eval.__path__)}
    assert not modules & set(invmm_eval.__all__)


@FACADES
def test_type_checkers_see_the_names_that_are_exported(facade: ModuleType) -> None:
    [checked] = [node for node in ast.parse(inspect.getsource(facade)).body if isinstance(node, ast.If)]
    imports = [node for node in checked.body if isinstance(node, ast.ImportFrom)]
    seen = {alias.asname: f"{node.module}.{alias.name}" for node in imports for alias in node.names}
    homes = facade._HOME_OF.items()
    modules = {name: f"invmm_eval.{name}" for name in getattr(facade, "_MODULES", ())}
    assert seen == {name: f"invmm_eval.{module}.{name}" for name, module in homes} | modules
    assert set(seen) == set(facade.__all__)


@FACADES
def test_every_name_can_be_imported(facade: ModuleType) -> None:
    code = f"""
        import {facade.__name__} as facade
        for name in facade.__all__:
            assert getattr(facade, name) is getattr(facade, name), name
    """
    failed, _, err = python(code)
    assert not failed, err


@pytest.mark.parametrize("name", ["hookimpl", "lazy", "Unconditional"])
def test_names_for_plugins_can_still_be_imported_from_the_package(name: str) -> None:
    """Plugins for version 0.1 import them from there."""
    with pytest.warns(DeprecationWarning, match=f"Import {name} from invmm_eval.plugin"):
        assert getattr(invmm_eval, name) is getattr(plugin, name)
