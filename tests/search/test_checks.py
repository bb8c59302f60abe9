import random
from collections.abc import Mapping
from dataclasses import replace
from math import nan
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from invmm_eval.models.condition import Condition, Context, Unconditional, rows
from invmm_eval.recipe import Recipe
from invmm_eval.search.checks import Trial, check
from invmm_eval.search.criteria import AllSamples, AnySample, Criterion
from invmm_eval.search.memory import MicroBatch
from invmm_eval.search.result import Check
from tests.helpers.exact import flow_schedule

BETA = 0.5
CODES = 1024


class Labelled:
    """A model whose sample of noise number i at guidance scale g is the code ``16 i + g``, shown as a shade of grey.

    One step along the flow takes noise straight to the estimate. The contexts carry their noise's number too, the null
    ones with a minus.
    """

    recipe = Recipe()
    settings: Mapping[str, str | int | float | None] = {"name": "codes"}
    clip: float | None = None
    device = torch.device("cpu")
    image_shape = (1, 1, 1)
    schedule = flow_schedule()

    def __init__(self) -> None:
        self.conditional_rows = 0
        self.null_rows = 0
        self.calls = 0

    @property
    def rows(self) -> int:
        return self.conditional_rows + self.null_rows

    def encode(self, images: Tensor) -> Tensor:
        return images

    def decode(self, x_0: Tensor) -> Tensor:
        return x_0 / CODES

    def condition(self, caption: str | None = None) -> Condition:  # noqa: ARG002
        return Unconditional()

    def predict_x0(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        number = context["number"]
        assert torch.equal(number.abs(), x_t.flatten())
        assert (t == 1).all()
        self.calls += 1
        self.conditional_rows += int((number > 0).sum())
        self.null_rows += int((number < 0).sum())
        return 16 * x_t + (number > 0).float()[:, None, None, None]


Outcomes = Mapping[tuple[int, int, float], float]
"""Similarities by image, noise number and guidance scale."""


class Planted:
    """A similarity that reads a sample's code and looks up what was planted for it."""

    name = "planted"
    threshold = BETA
    settings: Mapping[str, str | int | float | None] = {}

    def __init__(self, outcomes: Outcomes) -> None:
        self.outcomes = outcomes

    def embed(self, images: Tensor) -> Tensor:
        return images.flatten(1) * CODES

    def compare(self, a: Tensor, b: Tensor) -> Tensor:
        image = int(b.item())
        codes = [divmod(code, 16) for code in a.flatten().tolist()]
        return torch.tensor([[self.outcomes[image, int(number), scale]] for number, scale in codes])


class Case(NamedTuple):
    recipe: Recipe
    trials: list[Trial]
    similarity: Planted
    micro_batch: int

    def check(self, backbone: Labelled, *, complete: bool = False, criterion: Criterion | None = None) -> list[Check]:
        return self.check_some(self.trials, backbone, complete=complete, criterion=criterion)

    def check_some(
        self, trials: list[Trial], backbone: Labelled, *, complete: bool = False, criterion: Criterion | None = None
    ) -> list[Check]:
        return check(
            backbone,
            self.similarity,
            self.recipe,
            criterion or AllSamples(self.recipe, BETA),
            MicroBatch(self.micro_batch),
            [replace(trial, complete=complete) for trial in trials],
        )

    def plain(self, trial: Trial, backbone: Labelled) -> tuple[bool, dict[float, list[float]]]:
        """The rule as it is stated: all K samples at all scales, one by one."""
        values: dict[float, list[float]] = {}
        for scale in self.recipe.guidance:
            values[scale] = []
            for k in range(self.recipe.check_images):
                one, t = slice(k, k + 1), torch.ones(1)
                x_0 = backbone.predict_x0(trial.noise[one], t, rows(trial.context if scale else trial.null, one))
                if scale not in (0, 1):
                    unconditional = backbone.predict_x0(trial.noise[one], t, rows(trial.null, one))
                    x_0 = unconditional + scale * (x_0 - unconditional)
                feature = self.similarity.embed(backbone.decode(x_0))
                values[scale].append(self.similarity.compare(feature, trial.features).item())
        return any(all(value >= BETA for value in found) for found in values.values()), values


def plant(planted: list[dict[float, list[float]]], micro_batch: int = 100) -> Case:
    """A case from similarities by scale, for each image."""
    guidance = tuple(planted[0])
    images = len(planted[0][guidance[0]])
    trials: list[Trial] = []
    outcomes: dict[tuple[int, int, float], float] = {}
    for image, by_scale in enumerate(planted):
        numbers = torch.arange(1, images + 1) + image * images
        for scale, values in by_scale.items():
            outcomes |= {(image, int(number), scale): value for number, value in zip(numbers, values, strict=True)}
        number = numbers.float()
        features = torch.tensor([[float(image)]])
        trials.append(Trial(number.reshape(-1, 1, 1, 1), {"number": number}, {"number": -number}, features, guidance))
    recipe = Recipe(check_images=images, sampler_steps=1, guidance=guidance)
    return Case(recipe, trials, Planted(outcomes), micro_batch)


def random_case(seed: int) -> Case:
    """Any K, scales, number of images and share of failures; values are just at beta, too, and NaN."""
    chance = random.Random(seed)
    images = chance.randint(1, 9)
    scales = chance.sample([0.0, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0], chance.randint(1, 4))
    failing = chance.choice([0, 0.1, 0.3, 0.7, 1])

    def value() -> float:
        if chance.random() >= failing:
            return chance.randint(32, 64) / 64
        return nan if chance.random() < 0.1 else chance.randint(-64, 31) / 64

    count = chance.randint(1, 5)
    planted = [{scale: [value() for _ in range(images)] for scale in scales} for _ in range(count)]
    return plant(planted, micro_batch=chance.randint(1, 20))


CASES = st.builds(random_case, st.integers(0, 2**32))
SEVERAL = settings(max_examples=60, deadline=None, derandomize=True, database=None)


def needed(values: list[float]) -> int:
    """Samples that settle a scale: the first, and where it passes, all others at once."""
    return len(values) if values[0] >= BETA else 1


def same(a: Check, b: Check) -> bool:
    alike = a.passed == b.passed and repr(a.similarities) == repr(b.similarities)
    return alike and all(torch.equal(a.samples[scale], b.samples[scale]) for scale in {*a.samples, *b.samples})


# The verdict


@SEVERAL
@given(CASES)
def test_the_verdict_is_that_of_drawing_everything(case: Case) -> None:
    sparing, lavish = Labelled(), Labelled()
    outcomes = case.check(sparing)
    assert len(outcomes) == len(case.trials)
    rows_drawn = 0
    for trial, outcome in zip(case.trials, outcomes, strict=True):
        passed, values = case.plain(trial, lavish)
        assert outcome.passed == passed
        assert list(outcome.similarities) == list(case.recipe.guidance)
        assert outcome.score == min(values[outcome.best_scale]) or not passed
        for scale, drawn in outcome.similarities.items():
            assert repr(list(drawn)) == repr(values[scale][: len(drawn)])
            assert len(drawn) == needed(values[scale]) or (passed and len(drawn) == 1)
            rows_drawn += len(drawn) * (1 if scale in (0, 1) else 2)
    assert sparing.rows == rows_drawn <= lavish.rows


@SEVERAL
@given(CASES)
def test_a_complete_check_draws_everything_with_the_same_verdict(case: Case) -> None:
    complete, lavish = Labelled(), Labelled()
    outcomes = case.check(complete, complete=True)
    for trial, outcome, sparing in zip(case.trials, outcomes, case.check(Labelled()), strict=True):
        passed, values = case.plain(trial, lavish)
        assert outcome.passed == sparing.passed == passed
        assert {scale: repr(list(found)) for scale, found in outcome.similarities.items()} == {
            scale: repr(found) for scale, found in values.items()
        }
    assert complete.rows == lavish.rows


@SEVERAL
@given(CASES, st.booleans())
def test_company_does_not_matter(case: Case, complete: bool) -> None:
    together, apart = Labelled(), Labelled()
    outcomes = case.check(together, complete=complete)
    for trial, outcome in zip(case.trials, outcomes, strict=True):
        assert same(outcome, case.check_some([trial], apart, complete=complete)[0])
    assert together.rows == apart.rows


def test_no_images_have_no_outcomes() -> None:
    assert plant([{1.0: [1]}]).check_some([], Labelled()) == []


# The price


def test_a_scale_that_passes_settles_the_image() -> None:
    """The most promising scale has its turn first; the others keep their first sample, however good it is."""
    backbone = Labelled()
    better_later = [0.8] * 2 + [0.95] * 6
    (outcome,) = plant([{1.0: [0.1] * 8, 2.0: better_later, 3.0: [0.9] * 7 + [0.625], 4.0: [0.85] * 8}]).check(backbone)
    assert outcome.passed
    assert {scale: len(drawn) for scale, drawn in outcome.similarities.items()} == {1: 1, 2: 1, 3: 8, 4: 1}
    assert (outcome.best_scale, outcome.score) == (3, 0.625)
    assert (backbone.conditional_rows, backbone.null_rows) == (11, 10)


@pytest.mark.parametrize("company", [[], [[0.125] * 6]])
def test_where_any_sample_is_enough_all_scales_are_drawn_at_once_and_the_first_with_a_copy_decides(
    company: list[list[float]],
) -> None:
    first = {0.0: [0.125] * 6, 1.0: [0.25, 0.625] * 3, 3.0: [0.9] * 6}
    case, backbone = plant([first, *(dict.fromkeys(first, poor) for poor in company)]), Labelled()
    outcome, *others = case.check(backbone, criterion=AnySample(case.recipe, BETA))
    assert outcome.passed
    assert outcome.similarities == {0.0: (0.125, 0.125), 1.0: (0.25, 0.625)}
    assert {scale: len(samples) for scale, samples in outcome.samples.items()} == {0.0: 2, 1.0: 2}
    assert all(other.similarities == {0.0: (0.125,) * 2, 1.0: (0.125,) * 2, 3.0: (0.125,) * 2} for other in others)
    assert backbone.calls == 1
    assert (backbone.conditional_rows, backbone.null_rows) == (4 * len(case.trials), 4 * len(case.trials))


# What is kept


@SEVERAL
@given(CASES, st.booleans())
def test_samples_are_kept_as_pixels(case: Case, complete: bool) -> None:
    for trial, outcome in zip(case.trials, case.check(Labelled(), complete=complete), strict=True):
        for scale, samples in outcome.samples.items():
            numbers = trial.noise.flatten().tolist()[: len(outcome.similarities[scale])]
            assert samples.dtype == torch.uint8
            assert samples.tolist() == [[[[round((16 * number + scale) / CODES * 255)]]] for number in numbers]


@pytest.mark.parametrize(
    ("similarities", "score", "best_scale"),
    [
        ({1.0: (0.9,)}, 0.9, 1.0),
        ({1.0: (0.9, 0.6, 0.7), 2.0: (0.8, 0.65, 0.7)}, 0.65, 2.0),
        ({1.0: (0.9, 0.1), 2.0: (0.3,), 5.0: (0.7, 0.8, 0.9, -0.2)}, 0.3, 2.0),
        ({7.0: (-0.5,), 3.0: (-0.1,)}, -0.1, 3.0),
        ({1.0: (0.9, nan), 2.0: (0.3,)}, 0.3, 2.0),
        ({1.0: (nan, 0.9), 2.0: (0.3,)}, 0.3, 2.0),
    ],
)
def test_the_score_is_the_least_similarity_at_the_best_scale(
    similarities: dict[float, tuple[float, ...]], score: float, best_scale: float
) -> None:
    outcome = Check(passed=False, similarities=similarities, samples={})
    assert outcome.score == score
    assert outcome.best_scale == best_scale
