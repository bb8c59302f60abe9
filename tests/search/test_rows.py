"""Rows are counted where they are spent: those of a search are the same in any company, and are all there are."""

from typing import Any

import pytest
import torch
from torch import Tensor

from invmm_eval.models.condition import Context
from invmm_eval.recipe import DEMO, by_dose
from invmm_eval.similarity.pixel_cosine import PixelCosine
from tests.helpers.exact import Mixture, pictures, run

RECIPE = DEMO.changed(max_steps=20, check_every=10, draws=3, check_images=4, sampler_steps=5)
KNOWN = pictures(4)


class Tallied(Mixture):
    """Keeps the number of rows of each network call, by whether gradients are on."""

    def __init__(self, images: Tensor) -> None:
        super().__init__(images)
        self.calls: dict[bool, list[int]] = {True: [], False: []}

    def predict_x0(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        self.calls[torch.is_grad_enabled()].append(len(x_t))
        return super().predict_x0(x_t, t, context)

    @property
    def rows(self) -> int:
        return 3 * sum(self.calls[True]) + sum(self.calls[False])


@pytest.mark.parametrize("options", [{}, {"micro_batch": 7}])
@pytest.mark.parametrize("recipe", [RECIPE, by_dose(RECIPE).changed(max_steps=32, responses=8, check_images=4)])
def test_the_rows_of_all_images_are_the_rows_of_the_network(
    options: dict[str, Any], recipe: Any, cosine: PixelCosine
) -> None:
    model = Tallied(KNOWN[:2])
    results = run(model, KNOWN, cosine, recipe=recipe, batch_size=3, **options)
    assert sum(result.rows or 0 for result in results.values()) == pytest.approx(model.rows, abs=len(KNOWN))


def test_an_image_that_is_not_replicated_costs_its_steps_and_checks(cosine: PixelCosine) -> None:
    [result] = run(Mixture(KNOWN[:2]), KNOWN[3:], cosine, recipe=RECIPE.changed(guidance=(1.0, 2.0))).values()
    # one sample at each scale at the first check, all at the last; the scale 2 takes two rows
    assert result.rows == 3 * 20 * 3 + (1 + 2) * 5 + 4 * (1 + 2) * 5
