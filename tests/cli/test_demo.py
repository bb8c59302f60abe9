"""The demo's parts: which pictures, the AUC, the drawing."""

from dataclasses import replace

import pytest
import torch

from invmm_eval.cli.demo import auc, choose, draw
from invmm_eval.reference import pictures
from invmm_eval.search.check import Check
from invmm_eval.search.result import Result, Status


def result(kl: float, status: Status = Status.REPLICATED) -> Result:
    return Result(index=0, name="", digest="", status=status, kl=kl)


def test_auc_by_hand() -> None:
    low, high, never = result(0.1), result(0.3), result(0.2, Status.EXHAUSTED)
    assert auc([low], [high]) == 1
    assert auc([high], [low]) == 0
    assert auc([never], [never]) == 0.5
    assert auc([low, never], [high, never]) == pytest.approx((1 + 1 + 0 + 0.5) / 4)


def test_each_dose_is_chosen() -> None:
    copies = [picture.copies for picture in choose(pictures(), per_dose=2, held_out=3)]
    assert copies == [256, 256, 64, 64, 16, 16, 4, 4, 1, 1, 0, 0, 0]


def test_the_drawing_has_a_row_for_each_picture() -> None:
    chosen = choose(pictures(), per_dose=1, held_out=1)
    shown = Check(True, {1.0: (0.9, 0.9)}, {1.0: torch.zeros(2, 3, 32, 32, dtype=torch.uint8)})
    results = [replace(result(0.2), check=shown) for _ in chosen]
    results[-1] = Result(index=5, name="", digest="", status=Status.FAILED, error="It broke.")
    figure = draw(chosen, results)
    texts = {text.get_text() for axis in figure.axes for text in axis.texts}
    repeated = {f"{copies} copies\nInvMM 0.200" for copies in (256, 64, 16, 4)}
    assert texts == repeated | {"1 copy\nInvMM 0.200", "held out\nfailed"}
