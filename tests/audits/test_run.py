"""One way in: a short stack, and one set of options on every face."""

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import invmm_eval
from invmm_eval import InvMM, InvMMError, audit, calibrate, load_backbone
from invmm_eval.audits.options import LOADING_OPTIONS, OPTIONS
from invmm_eval.integrations import torchmetrics
from invmm_eval.integrations.mlflow import InvMMEvaluator
from invmm_eval.models.condition import Context
from tests.helpers.exact import Mixture, pictures, serving

KNOWN = pictures(3)
SHORT: dict[str, Any] = {"max_steps": 10, "check_every": 5, "draws": 4}
PACKAGE = str(Path(invmm_eval.__file__).parent)


class Watched(Mixture):
    """Remembers the functions of the package that called its network."""

    def __init__(self) -> None:
        super().__init__(KNOWN)
        self.stacks: set[tuple[str, ...]] = set()

    def predict_x0(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        stack = []
        frame = sys._getframe(1)
        while frame.f_back:
            if frame.f_code.co_filename.startswith(PACKAGE):
                stack.append(frame.f_code.co_name)
            frame = frame.f_back
        self.stacks.add(tuple(reversed(stack)))
        return super().predict_x0(x_t, t, context)


@pytest.fixture
def model() -> Iterator[Watched]:
    watched = Watched()
    with serving(lambda *_, **__: watched):
        yield watched


@pytest.mark.parametrize("out", [False, True])
@pytest.mark.parametrize(
    ("recipe", "settings"),
    [
        ("paper", {}),
        ("paper", {"optimizer": "dose", "first_dose": 2.0, "responses": 8, "confirm": 4}),  # estimators sample on
        ("fast", {}),
    ],
)
def test_few_functions_are_between_an_audit_and_the_network(
    recipe: str, settings: dict[str, Any], out: bool, model: Watched, tmp_path: Path
) -> None:
    audit(
        "any",
        list(KNOWN),
        backbone="exact",
        similarity="pixel-cosine",
        recipe=recipe,
        settings={**SHORT, **settings},
        out=tmp_path if out else None,
    )
    steps_and_checks = {stack for stack in model.stacks if stack[0] == "audit"}
    assert len(steps_and_checks) >= 2
    assert steps_and_checks == model.stacks
    assert max(len(stack[1:]) for stack in model.stacks) <= 10


@pytest.mark.parametrize(
    ("face", "missing"),
    [
        (audit, set()),
        (calibrate, {"calibration"}),
        (InvMM._compute, set()),
        (torchmetrics.InvMM.__init__, set()),
        (load_backbone, OPTIONS.keys() - LOADING_OPTIONS.keys()),
    ],
    ids=["audit", "calibrate", "metric", "torchmetrics", "load_backbone"],
)
def test_every_face_offers_the_same_options(face: Callable[..., Any], missing: set[str]) -> None:
    own = {"self", "model", "images", "held_out", "references"}
    own |= {"captions", "out", "shard", "keep", "on_step", "progress", "rate", "over", "max_steps", "kwargs"}
    parameters = inspect.signature(face).parameters
    assert parameters.keys() - own == OPTIONS.keys() - missing
    for name in parameters.keys() - own:
        assert parameters[name].default == OPTIONS[name].default


@pytest.mark.parametrize(
    "text",
    [audit.__doc__, torchmetrics.InvMM.__doc__, InvMMEvaluator.evaluate.__doc__, InvMM()._info().inputs_description],
    ids=["audit", "torchmetrics", "mlflow", "metric"],
)
def test_every_face_describes_the_same_options(text: str) -> None:
    assert "{options}" not in text
    for name, option in OPTIONS.items():
        assert re.search(rf"^ *{name} \(", text, re.M)
        assert option.help in " ".join(text.split())


def test_torchmetrics_accepts_the_earlier_names_of_options(model: Watched) -> None:
    metric = torchmetrics.InvMM("any", backbone="exact", load_to="cpu", precision="float16")
    assert metric._request.resources.device == "cpu"
    assert metric._request.model.dtype == "float16"
    assert metric.device == torch.device("cpu")
    assert not model.stacks
    with pytest.raises(InvMMError, match="leave workers out"):
        torchmetrics.InvMM("any", backbone="exact", workers="ranks")


def test_an_audit_runs_inside_inference_mode(tiny_folder: Path) -> None:
    picture = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        [inside] = audit(tiny_folder, [picture], similarity="pixel-cosine", recipe="demo", settings=SHORT)
        assert torch.is_inference_mode_enabled()
    [outside] = audit(tiny_folder, [picture], similarity="pixel-cosine", recipe="demo", settings=SHORT)
    assert (inside.error, inside.kl, inside.similarity) == (None, outside.kl, outside.similarity)
