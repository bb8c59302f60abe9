"""The names that the package and its facade for plugins export."""

import inspect
import pkgutil
import re
import textwrap
from collections.abc import Callable
from types import ModuleType

import pytest

import invmm_eval
from invmm_eval import plugin, testing
from invmm_eval.audits.folder.manifest import verify
from invmm_eval.errors import InvMMError

FACADES = pytest.mark.parametrize("facade", [invmm_eval, plugin, testing])


def test_no_name_is_that_of_a_module() -> None:
    """Importing a module binds its name in the package, which would hide a function of that name."""
    modules = {module.name for module in pkgutil.iter_modules(invmm_eval.__path__)}
    assert not modules & set(invmm_eval.__all__)


@FACADES
def test_every_name_is_what_type_checkers_see(facade: ModuleType) -> None:
    [checked] = re.findall(r"^if TYPE_CHECKING:\n((?:    .+\n)+)", inspect.getsource(facade), re.M)
    seen: dict[str, object] = {}
    exec(textwrap.dedent(checked), seen)
    del seen["__builtins__"]
    assert {name: getattr(facade, name) for name in facade.__all__} == seen


@pytest.mark.parametrize("name", ["hookimpl", "lazy", "Unconditional"])
def test_names_for_plugins_can_still_be_imported_from_the_package(name: str) -> None:
    """Plugins for version 0.1 import them from there."""
    with pytest.warns(DeprecationWarning, match=f"Import {name} from invmm_eval.plugin"):
        assert getattr(invmm_eval, name) is getattr(plugin, name)


def test_a_folder_that_is_no_path_is_refused_in_a_sentence() -> None:
    takes_folders: dict[Callable[..., object], tuple[object, ...]] = {
        invmm_eval.compare: (3, 4),
        invmm_eval.report: (3,),
        invmm_eval.merge: ("merged", [3, 4]),
        verify: (3,),
    }
    for function, arguments in takes_folders.items():
        with pytest.raises(InvMMError, match=r"^The folder of an audit is 3; give the path of a folder\.$"):
            function(*arguments)
