"""What the similarities of pixels have in common."""

import pytest
import torch

from invmm_eval.errors import InvMMError
from invmm_eval.plugins.builtin import register_similarities
from invmm_eval.similarity import Similarity
from invmm_eval.similarity.pixel_cosine import PixelCosine
from invmm_eval.similarity.ssim import SSIM


@pytest.fixture(params=[PixelCosine, SSIM])
def similarity(request: pytest.FixtureRequest) -> Similarity:
    made = register_similarities()[request.param.name](device=torch.device("cpu"))
    assert type(made) is request.param
    return made


@pytest.mark.parametrize("shape", [(3, 6, 24), (3, 16, 16), (1, 12, 12)])
def test_other_sizes_are_refused(similarity: Similarity, shape: tuple[int, ...]) -> None:
    features, others = (similarity.embed(torch.rand(2, *each)) for each in ((3, 12, 12), shape))
    with pytest.raises(InvMMError, match=r"\(3, 12, 12\) cannot be compared .* resize"):
        similarity.compare(features, others)


def test_the_threshold_lies_between_copies_and_other_pictures(similarity: Similarity) -> None:
    data = pytest.importorskip("skimage.data")
    transform = pytest.importorskip("skimage.transform")
    pictures = torch.stack(
        [
            torch.from_numpy(transform.resize(picture[..., :3], (32, 32), anti_aliasing=True)).permute(2, 0, 1).float()
            for picture in (data.astronaut(), data.coffee(), data.cat(), data.rocket(), data.colorwheel(), data.logo())
        ]
    )
    grain, gap = (0.03, 0.1) if similarity.name == SSIM.name else (0.05, 0.2)
    noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(0))
    noisy = (pictures + grain * noise).clamp(0, 1)
    values = similarity.compare(similarity.embed(pictures), similarity.embed(noisy))
    same = torch.eye(len(pictures), dtype=torch.bool)
    assert values[same].min() > similarity.threshold
    assert values[~same].max() < similarity.threshold - gap
