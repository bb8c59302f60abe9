"""Where samples agree with a picture, on pictures of which a known part is copied."""

import pytest
import torch
from torch import Tensor

from invmm_eval.similarity.agreement import SIDE, Agreement, agreement

generator = torch.Generator()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    generator.manual_seed(0)


def noise(n: int, side: int = 32, channels: int = 3) -> Tensor:
    """Blocks of random colours, uint8 ``(n, channels, side, side)``: different everywhere, with contrast."""
    blocks = torch.randint(0, 256, (n, channels, side // 4, side // 4), generator=generator, dtype=torch.uint8)
    return blocks.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)


def inner(found: Agreement, window: int = 5) -> tuple[Tensor, Tensor]:
    """The shares in the left and in the right half, without the places whose window has both."""
    half, edge = found.share.shape[1] // 2, window // 2
    return found.share[:, : half - edge], found.share[:, half + edge :]


@pytest.mark.parametrize("channels", [1, 3])
def test_of_a_picture_whose_left_half_is_copied_the_left_half_agrees(channels: int) -> None:
    picture, samples = noise(1, channels=channels)[0], noise(8, channels=channels)
    samples[..., :16] = picture[..., :16]
    found = agreement(picture, samples)
    left, right = inner(found)
    assert (left == 1).all()
    assert (right <= 0.5).float().mean() > 0.97
    assert found.part == pytest.approx(0.5, abs=0.06)


def test_small_differences_of_a_copy_do_not_matter() -> None:
    picture = noise(1)[0]
    grain = 0.05 * 255 * torch.randn((4, *picture.shape), generator=generator)
    samples = (picture + grain).clamp(0, 255).to(torch.uint8)
    assert agreement(picture, samples).part == 1


def test_the_share_counts_samples() -> None:
    picture, samples = noise(1)[0], noise(4)
    samples[:3] = picture
    shares = agreement(picture, samples).share.flatten().tolist()
    assert set(shares) <= {0.75, 1.0}
    assert shares.count(0.75) > 0.9 * len(shares)


def test_plain_places_say_nothing() -> None:
    picture = torch.full((3, 32, 32), 255, dtype=torch.uint8)
    assert agreement(picture, picture[None]).part is None
    picture[:, :, :16] = noise(1)[0, :, :, :16]
    other = torch.full((2, 3, 32, 32), 255, dtype=torch.uint8)
    found = agreement(picture, other)
    assert not found.has_contrast[:, 19:].any()
    assert found.part == pytest.approx(0, abs=0.1)


def test_mirrored_samples_agree_if_flips_count() -> None:
    picture = noise(1)[0]
    samples = torch.stack([picture, picture.flip(-1)])
    assert agreement(picture, samples).share.median() == 0.5
    assert agreement(picture, samples, flip=True).part == 1


def test_large_pictures_are_reduced() -> None:
    picture, samples = noise(1, side=256)[0], noise(3, side=256)
    samples[..., :128] = picture[..., :128]
    found = agreement(picture.repeat_interleave(2, dim=1), samples.repeat_interleave(2, dim=2))
    assert found.share.shape == (SIDE, SIDE // 2)
    left, _ = inner(found, window=9)
    assert (left == 1).all()
