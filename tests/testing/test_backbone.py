"""Each promise of a backbone is broken by a fake that breaks no other."""

from collections.abc import Callable, Mapping
from types import SimpleNamespace

import pytest
import torch
from torch import Generator, Tensor, nn

from invmm_eval import InvMMError, Recipe
from invmm_eval.models.ddpm import DDPM
from invmm_eval.models.schedule import x0_from_noise
from invmm_eval.plugin import Context, Unconditional, VariancePreserving, broadcast, frozen
from invmm_eval.recipe import STABLE_DIFFUSION
from invmm_eval.testing import BrokenPromise, check_backbone
from invmm_eval.testing.tiny import tiny_ddpm
from tests.helpers.breaches import Breach, after, before, sets, within

CPU = torch.device("cpu")


class Levels:
    """Stable Diffusion's, with functions that can be replaced."""

    def __init__(self) -> None:
        steps = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
        self.levels: Callable[[Tensor], tuple[Tensor, Tensor]] = VariancePreserving((1 - steps).cumprod(0))
        self.draw = self.levels.draw
        self.grid = self.levels.grid

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.levels(t)


class Words:
    """Three numbers that are searched."""

    def __init__(self) -> None:
        self.theta = torch.zeros(3, requires_grad=True)

    def parameters(self) -> Mapping[str, Tensor]:
        return {"theta": self.theta}

    def rsample(self, n: int, generator: Generator) -> Context:
        return {"words": self.theta + torch.randn(n, 3, generator=generator)}

    def null(self, n: int) -> Context:
        return {"words": torch.zeros(n, 3)}

    def prompt(self) -> str | None:
        return "three words"


class Good:
    """Keeps every promise: a convolution that predicts the noise from x_t and three numbers."""

    def __init__(self) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.network = frozen(nn.Conv2d(3, 3, 3, padding=1))
        self.device = CPU
        self.image_shape = (3, 8, 8)
        self.schedule = Levels()
        self.recipe: Recipe = STABLE_DIFFUSION
        self.settings: Mapping[str, str | int | float | None] = {
            "name": "good",
            "side": 8,
            "scale": 0.5,
            "revision": None,
        }
        self.clip: float | None = 1.0

    def encode(self, images: Tensor) -> Tensor:
        return images * 2 - 1

    def decode(self, x_0: Tensor) -> Tensor:
        return (x_0 / 2 + 0.5).clamp(0, 1)

    def condition(self, caption: str | None = None) -> Words:  # noqa: ARG002
        return Words()

    def predict_x0(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        alpha_t, sigma_t = (broadcast(level, x_t) for level in self.schedule(t))
        words = context["words"][:, :, None, None]
        return x0_from_noise(self.network(x_t + words) + broadcast(t / 1000, x_t), x_t, alpha_t, sigma_t)


def words(breach: Breach) -> Breach:
    """A breach of the condition."""
    return after("condition", breach)


def times(breach: Breach) -> Breach:
    """A breach of the schedule."""
    return within("schedule", breach)


def away(context: Context) -> Context:
    return {name: tensor.to("meta") for name, tensor in context.items()}


def learning(good: Good) -> Good:
    """A network that was not frozen."""
    good.network.requires_grad_()
    return good


def drifting(good: Good) -> Good:
    """A network that is moved when a gradient passes."""

    def move(_: Tensor) -> None:
        for weight in good.network.parameters():
            weight.data += 1.0

    def watched(estimate: Tensor) -> Tensor:
        if estimate.requires_grad:
            estimate.register_hook(move)  # type: ignore[no-untyped-call]
        return estimate

    after("predict_x0", watched)(good)
    return good


SHARED = Words()

BREACHES: list[tuple[str, Breach]] = [
    (r"device is a str", sets(device="cpu")),
    (r"image_shape is \[3, 8, 8\]", sets(image_shape=[3, 8, 8])),
    (r"image_shape is \(4, 8, 8\)", sets(image_shape=(4, 8, 8))),
    (r"recipe is a str", sets(recipe="paper")),
    (r"settings are a list", sets(settings=["good"])),
    (r"settings have 'dtype': torch.float32", sets(settings={"dtype": torch.float32})),
    (r"settings have 'scale': inf", sets(settings={"scale": float("inf")})),
    (r"clip is 0", sets(clip=0.0)),
    (r"The schedule has no __call__", sets(schedule=SimpleNamespace(draw=Levels().draw))),
    (r"draw\(64\) returns the shape \(64, 1\)", times(after("draw", lambda t: t[:, None]))),
    (r"draw returns other times", times(after("draw", lambda t: t[torch.randperm(len(t))]))),
    (r"draw returns the same times", times(after("draw", lambda t: torch.arange(len(t))))),
    (r"schedule returns a Tensor for times", times(after("levels", lambda pair: pair[0]))),
    (r"alpha for .* shape \(64,\) has the shape", times(after("levels", lambda pair: (pair[0][None], pair[1])))),
    (r"alpha for .* shape \(\) has the shape", times(after("levels", lambda pair: [x.reshape(-1) for x in pair]))),
    (r"sigma for .* is torch.float64", times(after("levels", lambda pair: (pair[0], pair[1].double())))),
    (r"grid has the shape \(5, 1\) for 4 steps", times(after("grid", lambda t: t[:, None]))),
    (r"grid is on meta", times(after("grid", lambda t: t.to("meta")))),
    (r"has a time twice", times(after("grid", lambda t: t.clamp(min=0)))),
    (r"Along the schedule's grid", times(after("grid", lambda t: t.flip(0)))),
    (r"grid ends at alpha 0.9996", times(after("grid", lambda t: t[:-1]))),
    (r"sigma 0 before its end", times(after("levels", lambda pair: (pair[0], pair[1] * (pair[1] > 0.1))))),
    (r"noisiest time has alpha 0.52", times(after("grid", lambda t: t[t < 500]))),
    (r"draws times with sigma from 0.0000", times(after("draw", lambda t: t.where(t > 500, -1)))),
    (r"output of encode is torch.float16", after("encode", Tensor.half)),
    (r"output of encode is on meta", after("encode", lambda x_0: x_0.to("meta"))),
    (r"encode returns the shape \(1, 3, 8, 8\) for inputs of length 3;", after("encode", lambda x_0: x_0[:1])),
    (r"encode returns the shape \(3, 8, 8\) for inputs of length 1;", after("encode", lambda x_0: x_0[0])),
    (r"output of encode requires a gradient", after("encode", Tensor.requires_grad_)),
    (r"encode changes its input", before("encode", lambda images: (images.mul_(0.9),))),
    (r"encode returns something else", after("encode", lambda x_0: x_0 + 0.1 * torch.randn(x_0.shape))),
    (r"encode returns something else for a row", after("encode", lambda x_0: x_0 - x_0.mean())),
    (r"output of decode has the shape \(3, 8, 8, 3\)", after("decode", lambda images: images.permute(0, 2, 3, 1))),
    (r"output of decode is torch.uint8", after("decode", Tensor.byte)),
    (r"output of decode for a large x_0 reaches from -49", sets(decode=lambda x_0: x_0 / 2 + 0.5)),
    (r"decode returns something else", after("decode", lambda images: images * torch.rand(()))),
    (r"decode returns something else for a row", after("decode", lambda images: images * len(images) / 3)),
    (r"is 0.5.. away from the images", after("decode", lambda images: images / 2)),
    (r"The condition has no prompt", words(lambda c: SimpleNamespace(parameters=c.parameters, rsample=0, null=0))),
    (r"parameters\(\) of the condition returns a list", words(sets(parameters=list))),
    (r"The parameter 'theta' of the condition cannot be optimized", words(sets(theta=torch.zeros(3)))),
    (r"The parameter 'theta' of the condition is torch.float16", words(sets(theta=torch.zeros(3, dtype=torch.half)))),
    (r"Two conditions share a parameter", words(lambda _: SHARED)),
    (r"null\(3\) is a Tensor", words(after("null", lambda context: context["words"]))),
    (r"null\(3\) has the shapes \[\(1, 3\)\]", words(after("null", lambda context: {"words": context["words"][:1]}))),
    (r"null\(3\) holds {'words': \(\(2,\)", words(after("null", lambda context: {"words": context["words"][:, :2]}))),
    (r"null\(3\) holds {'nothing'", words(after("null", lambda context: {"nothing": context["words"]}))),
    (r"null\(3\) holds .* torch.float64", words(after("null", lambda context: {"words": context["words"].double()}))),
    (
        r"rsample returns something else",
        words(after("rsample", lambda context: {"words": context["words"] + torch.rand(())})),
    ),
    (r"no parameters, but its contexts require", words(sets(parameters=dict))),
    (r"recipe's guidance is \(1.0, 2.0", words(lambda _: Unconditional())),
    (r"prompt\(\) is a list", words(sets(prompt=list))),
    (r"output of predict_x0 is torch.float64", after("predict_x0", Tensor.double)),
    (r"output of predict_x0 has the shape \(3, 1, 8, 8\)", after("predict_x0", lambda x_0: x_0[:, :1])),
    (r"output of predict_x0 is not finite", after("predict_x0", lambda x_0: x_0 / 0)),
    (r"predict_x0 is 0.[0-9]* away from x_0", after("predict_x0", lambda x_0: x_0 / 2)),
    (r"predict_x0 changes its input", before("predict_x0", lambda x_t, t, context: (x_t.mul_(0.99), t, context))),
    (r"predict_x0 returns something else when", after("predict_x0", nn.Dropout(0.1))),
    (
        r"predict_x0 returns something else for a row",
        before("predict_x0", lambda x_t, t, context: (x_t, t[:1].expand(len(t)), context)),
    ),
    (r"2 weights require a gradient", learning),
    (r"No usable gradient reaches x_t", before("predict_x0", lambda x_t, t, context: (x_t.detach(), t, context))),
    (
        r"No usable gradient reaches the condition's 'theta'",
        before("predict_x0", lambda x_t, t, context: (x_t, t, {"words": context["words"].round()})),
    ),
    (r"after a gradient was computed", drifting),
    (
        r"predict_x0 fails with RuntimeError \(.*\(float32 \(3, 3, 8, 8\), .*\{'words': float32 \(3, 3\)\}\);",
        within("network", nn.Module.double),
    ),
    (r"condition fails with TypeError \(.*\) when it is called with \(None\); make", sets(condition=lambda: Words())),
]


def test_a_good_backbone_passes() -> None:
    check_backbone(Good())


def test_a_good_backbone_without_condition_passes() -> None:
    good = Good()
    words(lambda _: Unconditional())(good)
    before("predict_x0", lambda x_t, t, _: (x_t, t, Words().null(len(x_t))))(good)
    good.recipe = Recipe()
    check_backbone(good)


@pytest.mark.parametrize(("sentence", "breach"), BREACHES, ids=[sentence for sentence, _ in BREACHES])
def test_a_broken_promise_is_named(sentence: str, breach: Breach) -> None:
    with pytest.raises(BrokenPromise, match=sentence) as caught:
        check_backbone(breach(Good()))
    message = str(caught.value)
    assert message.endswith(".")
    assert "\n" not in message


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_the_built_in_pixel_models_pass(prediction_type: str, dtype: torch.dtype) -> None:
    pipeline = tiny_ddpm(prediction_type).to(dtype)
    check_backbone(DDPM(pipeline, revision=None, device=CPU, dtype=dtype))


def test_captions_and_images_can_be_given() -> None:
    """For a model that needs a caption, or knows only certain images."""
    captions: list[str | None] = []
    encoded: list[Tensor] = []

    def condition(caption: str | None = None) -> Words:
        assert caption is not None
        captions.append(caption)
        return Words()

    def encode(images: Tensor) -> Tensor:
        encoded.append(images)
        return images * 2 - 1

    images = torch.rand((3, 3, 8, 8), generator=Generator().manual_seed(0)) / 2
    check_backbone(sets(condition=condition, encode=encode)(Good()), captions=["a label"], images=images)
    assert set(captions) == {"a label"}
    assert torch.equal(encoded[0], images)


class Choosy(DDPM):
    """Takes some captions only."""

    def __init__(self, *known: str) -> None:
        super().__init__(tiny_ddpm(), revision=None, device=CPU, dtype=torch.float32)
        self._known = known

    def condition(self, caption: str | None = None) -> Unconditional:
        if caption not in self._known:
            raise InvMMError("The model needs a caption that it knows.")
        return Unconditional()


def test_a_backbone_is_checked_with_captions_that_it_takes() -> None:
    check_backbone(Choosy("a picture"))
    check_backbone(Choosy("0", "1"), captions=("0", "1"))
    with pytest.raises(BrokenPromise, match=r"refuses the caption 'a picture' \(The model needs .* knows\); give"):
        check_backbone(Choosy("0", "1"))
