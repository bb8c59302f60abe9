"""Each promise of a detector is broken by a fake that breaks no other."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from invmm_eval.models.ddpm import DDPM
from invmm_eval.plugin import Backbone, InvMMError, Target, Unconditional, generator
from invmm_eval.testing import BrokenPromise, check_detector
from invmm_eval.testing.tiny import tiny_ddpm
from tests.helpers.breaches import Breach, sets


class Good:
    """The denoising error at one time."""

    def __init__(self) -> None:
        self.name = "error"
        self.settings: Mapping[str, str | int | float | None] = {"time": 500}
        self.rows = 1
        self.digests = True
        self.batch: Callable[[int], int] = lambda micro_batch: micro_batch
        self.change: Callable[[Any], Any] = lambda scores: scores
        self.touch: Callable[[Tensor], object] = lambda _: None

    def __call__(
        self, backbone: Backbone, x_0: Tensor, targets: Sequence[Target], *, seed: int, micro_batch: int
    ) -> Tensor:
        scores = []
        self.touch(x_0)
        for rows in torch.split(torch.arange(len(x_0)), self.batch(micro_batch)):
            noise = torch.stack(
                [
                    torch.randn(x_0.shape[1:], generator=generator(seed, targets[row].digest * self.digests, "error"))
                    for row in rows
                ]
            )
            noise = noise if self.digests else noise * (1 + rows).view(-1, 1, 1, 1)
            t = torch.full((len(rows),), 500)
            alpha_t, sigma_t = backbone.schedule(t[0])
            context = backbone.condition().null(len(rows))
            with torch.no_grad():
                estimate = backbone.predict_x0(alpha_t * x_0[rows] + sigma_t * noise, t, context)
            scores.append(-(estimate - x_0[rows]).square().flatten(1).mean(dim=1))
        changed: Tensor = self.change(torch.cat(scores))
        return changed


BREACHES: list[tuple[str, Breach]] = [
    (r"name is None", sets(name=None)),
    (r"settings have 'time': \(1,\)", sets(settings={"time": (1,)})),
    (r"rows are 1.5", sets(rows=1.5)),
    (r"returns a list", sets(change=Tensor.tolist)),
    (r"shape \(4, 1\) for 4 images", sets(change=lambda scores: scores[:, None])),
    (r"not all finite", sets(change=lambda scores: scores / 0)),
    (r"require a gradient", sets(change=Tensor.requires_grad_)),
    (r"states 2 network rows per image, but uses 1", sets(rows=2)),
    (r"with 4 rows where micro_batch is 3", sets(batch=lambda _: 4)),
    (r"changes x_0 in place", sets(touch=lambda x_0: x_0.mul_(0.9))),
    (r"other scores when it is called again", sets(change=lambda scores: scores * (1 + torch.rand(())))),
    (r"otherwise in another batch", sets(change=lambda scores: scores - scores.mean())),
    (r"otherwise in another batch", sets(digests=False)),
]


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return DDPM(tiny_ddpm(), revision=None, device=torch.device("cpu"), dtype=torch.float32)


def test_a_good_detector_passes_with_other_images_too(backbone: Backbone) -> None:
    check_detector(Good(), backbone)
    seen: list[int] = []
    good = Good()
    good.touch = lambda x_0: seen.append(len(x_0))
    images = torch.randint(256, (5, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    check_detector(good, backbone, [Target(image) for image in images])
    assert seen[0] == 5


@pytest.mark.parametrize(("sentence", "breach"), BREACHES)
def test_a_broken_promise_is_named(sentence: str, breach: Breach, backbone: Backbone) -> None:
    with pytest.raises(BrokenPromise, match=sentence):
        check_detector(breach(Good()), backbone)


def test_captions_that_the_model_refuses_are_named() -> None:
    class Choosy(DDPM):
        def condition(self, caption: str | None = None) -> Unconditional:
            raise InvMMError(f"There is no class {caption!r}.")

    choosy = Choosy(tiny_ddpm(), revision=None, device=torch.device("cpu"), dtype=torch.float32)
    with pytest.raises(BrokenPromise, match=r"refuses an image \(There is no class .*\); give check_detector targets="):
        check_detector(Good(), choosy)
