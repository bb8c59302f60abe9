"""The commands, registered with the command line."""

from pathlib import Path

import invmm_ui
import pytest

from invmm_eval.plugins.host import host
from invmm_eval.testing import check_command
from tests.helpers.command import Invoke, invoke, plain  # noqa: F401


@pytest.mark.parametrize("name", ["ui", "space"])
def test_it_keeps_its_promises(name: str) -> None:
    check_command(invmm_ui.register_commands()[name])


def test_ui_serves_the_audit_that_it_is_given(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    host().register(invmm_ui)
    served: list[tuple[Path | None, str, str]] = []
    monkeypatch.setattr("invmm_ui.app.serve", lambda *given: served.append(given))
    for arguments in (["ui"], ["ui", "an-audit", "--model", "org/model", "--recipe", "dose"]):
        assert invoke(*arguments)[0] == 0
    assert served == [(None, "reference", "fast"), (Path("an-audit"), "org/model", "dose")]
