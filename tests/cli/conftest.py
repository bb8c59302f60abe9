"""Commands in processes of their own also run without settings of the environment."""

import pytest

from tests.helpers.command import broken  # noqa: F401


@pytest.fixture(autouse=True)
def _plain(plain: None) -> None:
    """See :func:`tests.helpers.command.plain`."""
