import numpy as np
import pytest
import torch
from torch import Tensor

from invmm_eval.errors import InvMMError
from invmm_eval.similarity import Similarity
from invmm_eval.similarity.ssim import SSIM


@pytest.fixture
def ssim() -> Similarity:
    return SSIM(device=torch.device("cpu"))


def blocks(count: int, channels: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Random coarse pictures with fine grain: structure at more than one scale."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand((count, channels, (height + 3) // 4, (width + 3) // 4), generator=generator)
    large = coarse.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)[..., :height, :width]
    return 0.8 * large + 0.2 * torch.rand(large.shape, generator=generator)


def compare(similarity: Similarity, a: Tensor, b: Tensor) -> Tensor:
    return similarity.compare(similarity.embed(a), similarity.embed(b))


def scikit_image(a: Tensor, b: Tensor) -> float:
    """SSIM over all pixels of images mirrored at their borders.

    scikit-image leaves out the 5 pixels at the border that its window overlaps, so these are put there before.
    """
    metrics = pytest.importorskip("skimage.metrics")
    mirrored = [np.pad(x.double().numpy(), ((0, 0), (5, 5), (5, 5)), mode="reflect") for x in (a, b)]
    return float(
        metrics.structural_similarity(
            *mirrored, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0, channel_axis=0
        )
    )


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (3, 16, 40), (1, 6, 9)])
def test_all_pairs_are_those_of_scikit_image(ssim: Similarity, shape: tuple[int, int, int]) -> None:
    a = blocks(3, *shape)
    b = torch.cat([a[1:2] * 0.7 + 0.1, blocks(1, *shape, seed=1)])
    expected = [[scikit_image(one, other) for other in b] for one in a]
    np.testing.assert_allclose(compare(ssim, a, b).numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("size", [(5, 5), (32, 5), (5, 32)])
def test_images_smaller_than_the_window_allows_are_refused(ssim: Similarity, size: tuple[int, int]) -> None:
    with pytest.raises(InvMMError, match=f"at least 6 pixels a side, these are {size[0]}x{size[1]}"):
        ssim.embed(torch.zeros(1, 3, *size))
