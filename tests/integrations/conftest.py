"""A model whose best prediction is known, as a backbone."""

from collections.abc import Iterator

import pytest

from invmm_eval.plugins.hooks import BackboneEntry, hookimpl
from invmm_eval.plugins.host import host
from tests.helpers.exact import Mixture, pictures


@pytest.fixture
def exact() -> Iterator[Mixture]:
    """A model that knows two pictures, as the backbone ``exact``."""
    model = Mixture(pictures(2))

    class Plugin:
        @hookimpl
        def register_backbones(self) -> dict[str, BackboneEntry]:
            return {"exact": BackboneEntry(lambda *_, **__: model)}

    host.cache_clear()
    host().register(Plugin())
    yield model
    host.cache_clear()
