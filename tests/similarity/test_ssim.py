import numpy as np
import pytest
import torch
from torch import Tensor

from invmm_eval.errors import InvMMError
from invmm_eval.plugins.builtin import register_similarities
from invmm_eval.similarity import Similarity
from invmm_eval.similarity.ssim import SSIM

CPU = torch.device("cpu")


@pytest.fixture
def ssim() -> Similarity:
    return SSIM(device=CPU)


def blocks(count: int, channels: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Random coarse pictures with fine grain: structure at more than one scale."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand((count, channels, (height + 3) // 4, (width + 3) // 4), generator=generator)
    large = coarse.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)[..., :height, :width]
    return 0.8 * large + 0.2 * torch.rand(large.shape, generator=generator)


def compare(similarity: Similarity, a: Tensor, b: Tensor) -> Tensor:
    return similarity.compare(similarity.embed(a), similarity.embed(b))


def test_it_is_registered() -> None:
    assert isinstance(register_similarities()[SSIM.name](device=CPU), SSIM)


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


def test_an_image_is_itself_and_the_order_does_not_matter(ssim: Similarity) -> None:
    images = torch.cat([blocks(3, 3, 16, 16), torch.full((1, 3, 16, 16), 0.3)])
    values = compare(ssim, images, images)
    assert values.diagonal().tolist() == pytest.approx([1] * 4, abs=1e-3)
    np.testing.assert_allclose(values.numpy(), values.T.numpy(), atol=1e-5)
    assert values[~torch.eye(4, dtype=torch.bool)].max() < 0.9


@pytest.mark.parametrize("size", [(5, 5), (32, 5), (5, 32)])
def test_images_smaller_than_the_window_allows_are_refused(ssim: Similarity, size: tuple[int, int]) -> None:
    with pytest.raises(InvMMError, match=f"at least 6 pixels a side, these are {size[0]}x{size[1]}"):
        ssim.embed(torch.zeros(1, 3, *size))


@pytest.mark.parametrize("shape", [(3, 4, 16), (3, 16, 16), (1, 8, 8)])
def test_other_sizes_are_refused(ssim: Similarity, shape: tuple[int, ...]) -> None:
    with pytest.raises(InvMMError, match=r"\(3, 8, 8\) cannot be compared .* resize"):
        ssim.compare(torch.zeros(2, 3, 8, 8), torch.zeros(2, *shape))


def test_the_threshold_lies_between_copies_and_other_pictures(ssim: Similarity) -> None:
    data = pytest.importorskip("skimage.data")
    transform = pytest.importorskip("skimage.transform")
    pictures = torch.stack(
        [
            torch.from_numpy(transform.resize(picture[..., :3], (32, 32), anti_aliasing=True)).permute(2, 0, 1).float()
            for picture in (data.astronaut(), data.coffee(), data.cat(), data.rocket(), data.colorwheel(), data.logo())
        ]
    )
    noisy = (pictures + 0.03 * torch.randn(pictures.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    values = compare(ssim, pictures, noisy)
    same = torch.eye(len(pictures), dtype=torch.bool)
    assert values[same].min() > ssim.threshold
    assert values[~same].max() < ssim.threshold - 0.1
