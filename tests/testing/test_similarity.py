"""Each promise of a similarity is broken by a fake that breaks no other."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from invmm_eval.similarity.pixel_cosine import PixelCosine
from invmm_eval.similarity.sscd import SSCD
from invmm_eval.similarity.ssim import SSIM
from invmm_eval.testing import BrokenPromise, check_similarity
from tests.helpers.breaches import Breach, after, before, sets

CPU = torch.device("cpu")

BREACHES: list[tuple[str, Breach]] = [
    (r"name is ''", sets(name="")),
    (r"threshold is None", sets(threshold=None)),
    (r"settings have 'side': \(1, 2\)", sets(settings={"side": (1, 2)})),
    (r"output of embed for colour images of 32x32 is torch.float64", after("embed", Tensor.double)),
    (r"output of embed for grey images is not finite", after("embed", lambda x: x / (x.shape[1] != 1))),
    (
        r"embed of .* returns the shape \(3072,\) for inputs of length 5;",
        after("embed", lambda x: x.sum(dim=0).flatten()),
    ),
    (r"embed of colour images of 48x24 changes", before("embed", lambda x: (x.mul_(0.9) if x.shape[2] == 48 else x,))),
    (r"embed of .* returns something else", after("embed", lambda x: x + 0.1 * torch.randn(x.shape))),
    (r"embed of .* returns something else for a row", before("embed", lambda x: (x - x.mean(dim=0),))),
    (r"output of compare for .* has the shape \(5,\)", after("compare", Tensor.diagonal)),
    (r"output of compare for 2 and 5 .* has the shape \(5, 2\)", after("compare", lambda values: values.T)),
    (r"compare of .* returns something else for a row", after("compare", lambda values: values / len(values))),
    (r"compare of .* depends on which", after("compare", lambda values: values * torch.linspace(1, 0.9, 5))),
    (r"more like another one than like itself", after("compare", Tensor.neg)),
    (r"reaches 1.000 .*, below the threshold 1.5", sets(threshold=1.5)),
    (r"All different pictures reach the threshold -2", sets(threshold=-2)),
    (r"Pictures with a little noise reach 0.000", after("compare", lambda values: (values > 0.99999).float())),
]


@pytest.mark.parametrize(("sentence", "breach"), BREACHES, ids=[sentence for sentence, _ in BREACHES])
def test_a_broken_promise_is_named(sentence: str, breach: Breach) -> None:
    with pytest.raises(BrokenPromise, match=sentence):
        check_similarity(breach(PixelCosine(device=CPU)))


@pytest.mark.parametrize("kind", [PixelCosine, SSIM])
def test_the_built_in_ones_pass(kind: type[PixelCosine | SSIM]) -> None:
    check_similarity(kind(device=CPU))


class Colours(nn.Module):
    """What stands for SSCD's network: the mean colour of each quarter."""

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)


@pytest.mark.parametrize("side", [None, 16])
def test_sscd_passes(side: int | None, tmp_path: Path) -> None:
    torch.jit.script(Colours()).save(tmp_path / "colours.pt")  # type: ignore[no-untyped-call]
    check_similarity(SSCD(device=CPU, weights=tmp_path / "colours.pt", side=side))
