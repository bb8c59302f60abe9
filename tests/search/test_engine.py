"""The search: against models whose best denoiser is known exactly."""

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Self

import pytest
import torch
from torch import Generator, Tensor

from invmm_eval.audits.pictures import prepare
from invmm_eval.audits.plan import load_backbone
from invmm_eval.errors import InvMMError
from invmm_eval.models.condition import Context
from invmm_eval.noise.gaussian import diagonal
from invmm_eval.recipe import Recipe, by_dose, fast
from invmm_eval.reference import MODEL
from invmm_eval.reference import pictures as known
from invmm_eval.search.criteria import CRITERIA, AllSamples
from invmm_eval.search.engine import invert
from invmm_eval.search.optimizers import OPTIMIZERS, Optimizer, Parameters, Start
from invmm_eval.search.result import Point, Result, Status
from invmm_eval.search.search import Search
from invmm_eval.search.target import Target
from invmm_eval.similarity.pixel_cosine import PixelCosine
from tests.helpers.exact import QUICK, SHAPE, Chooser, Choosing, Mixture, pictures, run, targets

MEMORIZED = pictures(5)
UNSEEN = pictures(1, seed=99)


def test_memorized_pictures_are_replicated_and_an_unseen_one_is_not(cosine: PixelCosine) -> None:
    found = run(Mixture(MEMORIZED), torch.cat([MEMORIZED, UNSEEN]), cosine, batch_size=6)
    assert [found[str(index)].status for index in range(5)] == [Status.REPLICATED] * 5
    assert all(0 < found[str(index)].invmm < 1 for index in range(5))
    unseen = found["5"]
    assert unseen.status is Status.EXHAUSTED
    assert unseen.invmm == math.inf
    assert unseen.kl is not None
    assert math.isfinite(unseen.kl)
    assert unseen.steps == QUICK.max_steps


def test_a_rare_picture_needs_the_noise_bent_further(cosine: PixelCosine) -> None:
    """The share of noise space that leads to a picture falls with its weight, so the least KL rises."""
    weights = torch.tensor([0.90, 0.07, 0.01, 0.01, 0.01])
    found = run(Mixture(MEMORIZED, weights), MEMORIZED[:3], cosine, batch_size=3)
    assert found["0"].invmm < found["1"].invmm < found["2"].invmm


def test_company_and_order_do_not_matter(cosine: PixelCosine) -> None:
    """Alone, five together, or in any order: the same bits, since the network is given one image's draws at a time."""
    model = Mixture(MEMORIZED)
    images, recipe = torch.cat([MEMORIZED, UNSEEN]), replace(QUICK, max_steps=60)
    alone = run(model, images, cosine, recipe=recipe, batch_size=1)
    for batch_size, order in ((5, [0, 1, 2, 3, 4, 5]), (5, [5, 3, 1, 4, 2, 0]), (2, [2, 0, 5, 1, 4, 3])):
        ordered = [targets(images)[index] for index in order]
        for result in invert(model, ordered, cosine, diagonal(), recipe=recipe, batch_size=batch_size):
            expected = alone[result.name]
            assert (result.status, result.kl, result.steps) == (expected.status, expected.kl, expected.steps)
            assert torch.equal(result.noise["mu"], expected.noise["mu"])


def test_company_does_not_matter_to_a_network(cosine: PixelCosine) -> None:
    """A network, unlike a formula, rounds by the rows it is given together; in checks too."""
    model = load_backbone(MODEL, device="cpu")
    images = torch.stack([prepare(picture.image, model.image_shape) for picture in known()[:3]])
    recipe = Recipe(max_steps=4, check_every=2, draws=2, sampler_steps=3, check_images=2, threshold=0.9)
    alone, together = (run(model, images, cosine, recipe=recipe, batch_size=size) for size in (1, 3))
    for name, result in together.items():
        expected = alone[name]
        assert result.check
        assert expected.check
        assert (result.kl, result.trace) == (expected.kl, expected.trace)
        assert result.check.similarities == expected.check.similarities


@pytest.mark.parametrize("recipe", [QUICK, by_dose(QUICK).changed(responses=0), fast(QUICK).changed(estimators=())])
def test_one_call_of_the_optimizer_moves_the_parameters_of_all_images(
    cosine: PixelCosine, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the noise and of the prompt, with the same bits as alone."""
    moved: list[int] = []

    def step(cls: type[Optimizer], optimizers: Sequence[Optimizer], *, checked: bool) -> None:  # noqa: ARG001
        moved.append(len(optimizers))
        kind.step(optimizers, checked=checked)

    kind = OPTIMIZERS[recipe.optimizer]
    monkeypatch.setitem(OPTIMIZERS, recipe.optimizer, type("Watched", (kind,), {"step": classmethod(step)}))
    recipe = recipe.changed(guidance=(1.0, 2.0), max_steps=4, check_every=2, stop=False)
    model, images = Choosing(MEMORIZED), torch.cat([MEMORIZED[:2], UNSEEN])
    together = run(model, images, cosine, recipe=recipe, batch_size=3)
    assert moved == [3] * 4
    for name, alone in run(model, images, cosine, recipe=recipe, batch_size=1).items():
        assert alone.trace == together[name].trace
        assert all(torch.equal(tensor, together[name].tensors()[key]) for key, tensor in alone.tensors().items())


def test_one_seed_gives_the_same_numbers_and_another_gives_others(cosine: PixelCosine) -> None:
    model = Mixture(MEMORIZED)
    first, again, other = (run(model, MEMORIZED[:1], cosine, seed=seed)["0"] for seed in (3, 3, 4))
    assert first.kl == again.kl
    assert first.check == replace(again.check, samples=first.check.samples)  # type: ignore[type-var,union-attr]
    assert first.kl != other.kl


def test_a_search_is_not_changed_by_what_its_checks_draw(cosine: PixelCosine) -> None:
    """Steps and checks have random numbers of their own: fewer images at a check leave the path as it is."""
    model = Mixture(MEMORIZED)
    recipe = replace(QUICK, max_steps=40)
    many, few = (run(model, UNSEEN, cosine, recipe=replace(recipe, check_images=k))["0"] for k in (8, 2))
    assert many.kl == few.kl
    assert many.check is not None
    assert few.check is not None
    assert len(many.check.similarities[1.0]) == 8
    assert len(few.check.similarities[1.0]) == 2


def test_the_condition_is_searched_along(cosine: PixelCosine) -> None:
    """The prompt that favours a picture is found, and the guidance scales of the recipe are tried."""
    model = Choosing(MEMORIZED)
    recipe = replace(QUICK, guidance=(1.0, 2.0, 4.0))
    found = run(model, MEMORIZED, cosine, recipe=recipe, batch_size=5)
    for index in range(5):
        result = found[str(index)]
        assert result.status is Status.REPLICATED
        assert result.condition["logits"].argmax() == index
        assert result.check is not None
        assert set(result.check.similarities) == {1.0, 2.0, 4.0}
    fixed = run(Mixture(MEMORIZED), MEMORIZED, cosine, batch_size=5)
    assert sum(r.invmm for r in found.values()) < sum(r.invmm for r in fixed.values())


@pytest.mark.parametrize(("shared", "drawn"), [(True, 1), (False, QUICK.check_images)])
def test_a_check_draws_one_context_for_all_noises_or_one_for_each(
    cosine: PixelCosine, shared: bool, drawn: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def rsample(self: Chooser, n: int, generator: Generator) -> Context:
        if not torch.is_grad_enabled():
            seen.append(n)
        return original(self, n, generator)

    original = Chooser.rsample
    monkeypatch.setattr(Chooser, "rsample", rsample)
    run(Choosing(MEMORIZED), MEMORIZED[:1], cosine, recipe=replace(QUICK, shared_context=shared))
    assert seen
    assert set(seen) == {drawn}


def test_the_found_prompt_can_be_read(cosine: PixelCosine) -> None:
    found = run(Choosing(MEMORIZED), MEMORIZED[:2], cosine, batch_size=2)
    assert [found["0"].prompt, found["1"].prompt] == ["picture 0", "picture 1"]
    assert run(Mixture(MEMORIZED), MEMORIZED[:1], cosine)["0"].prompt is None


def test_the_trace_follows_the_weight(cosine: PixelCosine) -> None:
    found = run(Mixture(MEMORIZED), UNSEEN, cosine, recipe=replace(QUICK, max_steps=50))["0"]
    assert [point.step for point in found.trace] == [10, 20, 30, 40, 50]
    weight, before = 1.0, math.inf
    for point in found.trace:
        weight += 9 * QUICK.delta
        assert point.weight == pytest.approx(weight)
        weight = weight / 2 if before - point.loss < QUICK.xi else weight + QUICK.delta
        before = point.loss


def test_an_image_of_the_wrong_size_fails_alone(cosine: PixelCosine) -> None:
    wrong = Target(torch.zeros(1, 5, 5, dtype=torch.uint8), name="wrong")
    both = [wrong, *targets(MEMORIZED[:1])]
    found = list(invert(Mixture(MEMORIZED), both, cosine, diagonal(), recipe=QUICK, batch_size=2))
    assert {result.name: result.status for result in found} == {"wrong": Status.FAILED, "0": Status.REPLICATED}
    assert "torch.uint8 of shape (1, 4, 4)" in str(found[0].error)
    assert math.isnan(found[0].invmm)


class Poisoned(Mixture):
    """Something goes wrong with one picture alone: the one whose first pixel is black."""

    def __init__(self, images: Tensor, poison: str) -> None:
        super().__init__(images)
        self.poison = poison

    def encode(self, images: Tensor) -> Tensor:
        x_0 = super().encode(images)
        return torch.where(x_0[:, :, :1, :1] < 0, x_0 * float("nan"), x_0) if self.poison == "nan" else x_0

    def predict_x0(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        x_0 = super().predict_x0(x_t, t, context)
        if self.poison == "raise" and len(x_t) == QUICK.draws and (x_t[:, 0, 0, 0].mean() < -0.3):
            raise RuntimeError("the network broke")
        return x_0


@pytest.mark.parametrize(("poison", "sentence"), [("nan", "The loss became nan at step 1"), ("raise", "RuntimeError")])
def test_one_poisoned_image_fails_alone(cosine: PixelCosine, poison: str, sentence: str) -> None:
    images = MEMORIZED[:3].clone()
    images[:, 0, 0, 0] = 255
    images[1, 0, 0, 0] = 0
    expected = run(Mixture(images), images, cosine, batch_size=3)
    found = run(Poisoned(images, poison), images, cosine, batch_size=3, micro_batch=QUICK.draws)
    assert found["1"].status is Status.FAILED
    assert sentence in str(found["1"].error)
    assert found["1"].kl is None
    if poison == "nan":
        assert [found[name].kl for name in "02"] == [expected[name].kl for name in "02"]
    assert [found[name].status for name in "02"] == [Status.REPLICATED] * 2


class Blocking(Mixture):
    @torch.no_grad()
    def predict_x0(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        return super().predict_x0(x_t, t, context)


class Halved(Mixture):
    def predict_x0(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        return super().predict_x0(x_t, t, context).half()


@pytest.mark.parametrize(
    ("model", "sentence"), [(Halved, "must return torch.float32"), (Blocking, "lets no gradient through")]
)
def test_a_broken_promise_fails_the_search(cosine: PixelCosine, model: type[Mixture], sentence: str) -> None:
    (found,) = run(model(MEMORIZED), MEMORIZED[:1], cosine).values()
    assert found.status is Status.FAILED
    assert re.search(sentence, str(found.error))
    assert found.traceback is None


def test_an_unexpected_error_keeps_its_traceback_and_is_one_line(cosine: PixelCosine) -> None:
    class Misspelt(Mixture):
        def predict_x0(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
            return super().predict_x0(x_t, t, context) * context["hiden_states"]

    (found,) = run(Misspelt(MEMORIZED), MEMORIZED[:1], cosine).values()
    assert found.error == "KeyError: 'hiden_states'"
    assert 'context["hiden_states"]' in str(found.traceback)
    assert Result.from_record(found.record()).traceback == found.traceback


def test_finished_images_leave_and_waiting_ones_enter(cosine: PixelCosine) -> None:
    together: list[list[str]] = []

    def watch(searches: Sequence[Search]) -> None:
        names = [search.target.name for search in searches]
        if not together or together[-1] != names:
            together.append(names)

    run(Mixture(MEMORIZED), MEMORIZED, cosine, batch_size=2, on_step=watch)
    assert together[0] == ["0", "1"]
    assert max(map(len, together)) == 2
    assert set().union(*together) == set("01234")


def test_the_callback_can_read_a_search(cosine: PixelCosine) -> None:
    seen: list[tuple[int, float, float, float]] = []

    def watch(searches: Sequence[Search]) -> None:
        seen.extend((search.step, search.loss, search.kl, search.optimizer.weight) for search in searches)

    found = run(Mixture(MEMORIZED), UNSEEN, cosine, recipe=replace(QUICK, max_steps=20), on_step=watch)["0"]
    steps, losses, kls, _ = zip(*seen, strict=True)
    assert list(steps) == list(range(1, 21))
    assert found.trace[0].loss == pytest.approx(sum(losses[:10]) / 10)
    assert kls[-1] == found.kl


def test_unknown_parts_of_a_recipe_are_refused_before_any_image(cosine: PixelCosine) -> None:
    for changes in ({"optimizer": "sgd"}, {"criterion": "most"}, {"estimators": ("share",)}):
        recipe = QUICK.changed(**changes)
        with pytest.raises(InvMMError, match=r"choose one of|estimator 'share' is not among"):
            invert(Mixture(MEMORIZED), targets(MEMORIZED), cosine, diagonal(), recipe=recipe)


class Blocked(Mixture):
    """No gradient passes its network."""

    no_gradient = "no gradient reaches x_t"

    def predict_x0(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        return super().predict_x0(x_t.detach(), t, context)


def test_a_model_without_gradients_is_searched_where_none_are_needed(cosine: PixelCosine) -> None:
    recipe = fast(QUICK).changed(estimators=(), plain=64)
    found, expected = (run(kind(MEMORIZED), MEMORIZED[:1], cosine, recipe=recipe)["0"] for kind in (Blocked, Mixture))
    assert found.status is Status.REPLICATED
    assert (found.invmm, found.rows) == (expected.invmm, expected.rows)
    with pytest.raises(InvMMError, match="cannot search this model: no gradient reaches x_t; take the recipe fast"):
        run(Blocked(MEMORIZED), MEMORIZED, cosine)


class Patient(AllSamples):
    """A stopping rule of somebody else's: the search gives up above a KL."""

    def status(self, trace: Sequence[Point], *, passed: bool, last: bool) -> Status | None:
        return super().status(trace, passed=passed, last=last or trace[-1].kl > 0.01)


class Descent:
    """A way to move q of somebody else's: plain gradient descent."""

    ray = None
    weight = 0.01

    uses_gradients = True

    def __init__(self, noise: Parameters, condition: Parameters, recipe: Recipe, start: Start) -> None:  # noqa: ARG002
        self._sgd = torch.optim.SGD([*noise.values(), *condition.values()], lr=recipe.learning_rate)

    @classmethod
    def step(cls, optimizers: Sequence[Self], *, checked: bool) -> None:  # noqa: ARG003
        for optimizer in optimizers:
            optimizer._sgd.step()

    def after_check(self, average_loss: float) -> None:
        pass


def test_a_new_stopping_rule_and_a_new_optimizer_are_one_class_and_one_line_each(
    cosine: PixelCosine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CRITERIA, "patient", Patient)
    monkeypatch.setitem(OPTIMIZERS, "descent", Descent)
    found = run(Mixture(MEMORIZED), UNSEEN, cosine, recipe=replace(QUICK, criterion="patient"))["0"]
    assert (found.status, found.steps) == (Status.EXHAUSTED, QUICK.check_every)
    recipe = replace(QUICK, optimizer="descent", learning_rate=50.0)
    found = run(Mixture(MEMORIZED), MEMORIZED[:1], cosine, recipe=recipe)["0"]
    assert found.status is Status.REPLICATED
    assert {point.weight for point in found.trace} == {0.01}


def test_a_recipe_of_the_backbone_is_the_default(cosine: PixelCosine) -> None:
    model = Mixture(MEMORIZED)
    model.recipe = Recipe(name="its own", max_steps=3, check_every=3, draws=2, sampler_steps=2)
    (found,) = invert(model, targets(UNSEEN), cosine, diagonal())
    assert found.steps == 3


class Undefined(Mixture):
    """A model whose samples are not finite."""

    def decode(self, x_0: Tensor) -> Tensor:
        return super().decode(x_0) * torch.nan


def test_a_search_ends_at_the_first_check_beyond_the_limit_in_nats(cosine: PixelCosine) -> None:
    """It is the same search until then, and its last check draws all samples."""
    whole = run(Mixture(MEMORIZED), UNSEEN, cosine)["0"]
    nats = [point.kl * UNSEEN[0].numel() for point in whole.trace]
    limit = nats[3] - 1e-3
    found = run(Mixture(MEMORIZED), UNSEEN, cosine, recipe=replace(QUICK, max_nats=limit))["0"]
    assert max(nats[:3]) < limit
    assert (found.status, found.trace[:3]) == (Status.EXHAUSTED, whole.trace[:3])
    assert len(found.trace) == 4
    assert found.check is not None
    assert len(found.check.similarities[1.0]) == QUICK.check_images


def test_samples_that_are_not_finite_fail_the_search_instead_of_exhausting_it(cosine: PixelCosine) -> None:
    images = pictures(1)
    found = run(Undefined(images), images, cosine)["0"]
    assert found.status is Status.FAILED
    assert "The similarity pixel-cosine of a sample to the image is nan" in str(found.error)
    assert found.traceback is None


def test_an_image_for_which_the_similarity_is_not_defined_fails_with_a_sentence(cosine: PixelCosine) -> None:
    black = torch.zeros(1, *SHAPE, dtype=torch.uint8)
    found = run(Mixture(black), torch.cat([black, black + 255, pictures(1)]), cosine, batch_size=3)
    assert [found[name].status for name in "012"] == [Status.FAILED, Status.FAILED, Status.EXHAUSTED]
    assert "pixel-cosine is not defined for this image" in str(found["0"].error)
