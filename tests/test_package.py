"""The package's own names."""

import pkgutil
import subprocess
import sys
import textwrap

import invmm_eval


def test_no_name_is_that_of_a_module() -> None:
    """Importing a module binds its name in the package: a function of that name would be lost then."""
    modules = {module.name for module in pkgutil.iter_modules(invmm_eval.__path__)}
    assert not modules & set(invmm_eval.__all__)


def test_every_name_is_there_however_it_is_imported() -> None:
    code = """
        import invmm_eval
        for name in invmm_eval.__all__:
            assert getattr(invmm_eval, name) is getattr(invmm_eval, name), name
            assert callable(getattr(invmm_eval, name)) or name.isupper(), name
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
