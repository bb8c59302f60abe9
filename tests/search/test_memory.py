"""Where memory runs out, network calls become smaller and nothing is lost."""

from dataclasses import replace

import pytest
import torch
from torch import Generator, Tensor

from invmm_eval.models.condition import Context
from invmm_eval.noise.gaussian import diagonal
from invmm_eval.search.engine import invert
from invmm_eval.search.result import Result, Status
from invmm_eval.similarity.pixel_cosine import PixelCosine
from tests.helpers.exact import QUICK, Chooser, Choosing, Mixture, pictures, run, targets

MEMORIZED = pictures(5)


@pytest.fixture(scope="module")
def whole() -> dict[str, Result]:
    """What is found without limits."""
    return run(Mixture(MEMORIZED), MEMORIZED, PixelCosine(device=torch.device("cpu")), batch_size=5)


def assert_same(found: dict[str, Result], expected: dict[str, Result]) -> None:
    for name, result in found.items():
        assert (result.status, result.steps) == (expected[name].status, expected[name].steps)
        assert result.kl == pytest.approx(expected[name].kl, rel=1e-3)


class Cramped(Mixture):
    """A mixture whose device has memory for a limited number of rows."""

    def __init__(self, images: Tensor, room: int) -> None:
        super().__init__(images)
        self.room = room
        self.refused = 0

    def predict_x0(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        if len(x_t) > self.room:
            self.refused += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return super().predict_x0(x_t, t, context)


@pytest.mark.parametrize(("room", "refused"), [(8, 1), (5, 2)])
def test_where_memory_runs_out_the_portion_is_halved_for_good_and_nothing_is_lost(
    cosine: PixelCosine, whole: dict[str, Result], room: int, refused: int
) -> None:
    model = Cramped(MEMORIZED, room)
    found = run(model, MEMORIZED[:2], cosine, batch_size=2)
    assert model.refused == refused, "16 rows, then 8, then 4, and what fits is kept"
    assert_same(found, whole)


def test_memory_that_runs_out_at_checks_alone_is_as_harmless(cosine: PixelCosine) -> None:
    """There the two passes of guidance take twice the rows."""
    recipe = replace(QUICK, guidance=(2.0, 3.0), check_images=32)
    expected = run(Choosing(MEMORIZED), MEMORIZED[:2], cosine, recipe=recipe, batch_size=2)

    class CrampedChoosing(Cramped, Choosing):
        pass

    model = CrampedChoosing(MEMORIZED, 16)
    found = run(model, MEMORIZED[:2], cosine, recipe=recipe, batch_size=2)
    assert model.refused == 1
    assert_same(found, expected)


def test_memory_that_never_suffices_fails_each_image_in_one_sentence(cosine: PixelCosine) -> None:
    found = run(Cramped(MEMORIZED, 0), MEMORIZED[:2], cosine, batch_size=2)
    for result in found.values():
        assert result.status is Status.FAILED
        assert result.error == (
            "Memory ran out with a single row in the network; choose a lower precision, or a device with more memory."
        )


@pytest.mark.parametrize("in_steps", [True, False])
def test_memory_that_runs_out_while_one_image_is_drawn_fails_it_alone(cosine: PixelCosine, in_steps: bool) -> None:
    class Bulky(Chooser):
        def rsample(self, n: int, generator: Generator) -> Context:
            if torch.is_grad_enabled() == in_steps:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return super().rsample(n, generator)

    class Reading(Choosing):
        def condition(self, caption: str | None = None) -> Chooser:
            return Bulky(self._first, self._null) if caption == "long" else super().condition(caption)

    captioned = [replace(target, caption="long" if target.name == "1" else None) for target in targets(MEMORIZED[:3])]
    expected = run(Choosing(MEMORIZED), MEMORIZED[:3], cosine)
    for result in invert(Reading(MEMORIZED), captioned, cosine, diagonal(), recipe=QUICK, batch_size=3):
        if result.name == "1":
            assert result.status is Status.FAILED
            assert result.steps == (0 if in_steps else QUICK.check_every)
            assert result.error == "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."
        else:
            assert (result.status, result.kl) == (Status.REPLICATED, expected[result.name].kl)


@pytest.mark.parametrize("micro_batch", [1, 7, 16, 1000])
def test_micro_batches_bound_the_rows_and_keep_the_result(
    cosine: PixelCosine, whole: dict[str, Result], micro_batch: int
) -> None:
    model = Mixture(MEMORIZED)
    cut = run(model, MEMORIZED, cosine, batch_size=5, micro_batch=micro_batch)
    assert max(model.rows_seen) <= micro_batch
    assert_same(cut, whole)
