import numpy as np
import pytest
import torch
from torch import Tensor

from invmm_eval.similarity import Similarity
from invmm_eval.similarity.pixel_cosine import PixelCosine


def noise(count: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.rand((count, *shape), generator=torch.Generator().manual_seed(seed))


def compare(similarity: Similarity, a: Tensor, b: Tensor) -> Tensor:
    return similarity.compare(similarity.embed(a), similarity.embed(b))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 7), (3, 1, 2)])
def test_it_is_the_correlation_of_pixels(cosine: PixelCosine, shape: tuple[int, ...]) -> None:
    a, b = noise(4, *shape), noise(3, *shape, seed=1)
    expected = np.corrcoef(a.flatten(1).double().numpy(), b.flatten(1).double().numpy())[:4, 4:]
    np.testing.assert_allclose(compare(cosine, a, b).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("level", [0.0, 0.1, 1 / 3, 0.7, 1.0])
@pytest.mark.parametrize("side", [8, 100])
def test_it_is_not_defined_for_an_image_without_contrast_and_such_a_sample_is_like_none(
    cosine: PixelCosine, level: float, side: int
) -> None:
    even = torch.full((1, 3, side, side), level)
    almost = even + torch.rand(even.shape, generator=torch.Generator().manual_seed(0)) / 255
    others = noise(1, 3, side, side)
    assert compare(cosine, torch.cat([even, almost]), others).tolist() == [[0], [0]]
    assert compare(cosine, others, torch.cat([even, almost])).isnan().all()


def test_the_faintest_picture_is_still_one(cosine: PixelCosine) -> None:
    faint = torch.full((1, 1, 8, 8), 0.5)
    faint[0, 0, :4] += 3 / 255
    assert compare(cosine, faint, faint).item() == pytest.approx(1, abs=1e-3)
