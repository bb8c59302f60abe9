"""A model whose best prediction is known, as a backbone; a store of mlflow."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.exact import Mixture, pictures, serving


@pytest.fixture
def exact() -> Iterator[Mixture]:
    """A model that knows two pictures, as the backbone ``exact``."""
    model = Mixture(pictures(2))
    with serving(lambda *_, **__: model):
        yield model


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store of one module alone, in one file of SQLite, with its artifacts beside it."""
    mlflow = pytest.importorskip("mlflow", reason="mlflow is an extra: pip install invmm-eval[mlflow]")
    folder = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        patch.setenv("MLFLOW_EXPERIMENT_ID", mlflow.create_experiment("audits", f"{folder}/artifacts"))
        mlflow.tracing.reset()
        yield folder
    mlflow.tracing.reset()
