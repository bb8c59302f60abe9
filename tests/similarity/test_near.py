"""Near copies are found where they were made, and nothing else changes."""

from typing import Any

import pytest
import torch
from torch import Tensor

from invmm_eval.errors import InvMMError
from invmm_eval.noise.gaussian import diagonal
from invmm_eval.search.engine import invert
from invmm_eval.search.status import Verdict
from invmm_eval.search.target import Target
from invmm_eval.similarity.near import NearCopies, split_options
from invmm_eval.similarity.pixel_cosine import PixelCosine
from invmm_eval.similarity.ssim import SSIM
from invmm_eval.testing import check_similarity
from tests.helpers import exact
from tests.helpers.audits import planned

CPU = torch.device("cpu")
ALL: dict[str, Any] = {"flip": True, "shift": 2, "crop": 0.75}
SCENE = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
"""More than a picture of 16x16 shows: what is shifted into its frame."""


def frame(y: int = 4, x: int = 4, side: int = 16) -> Tensor:
    return SCENE[..., y : y + side, x : x + side]


def similar(one: Tensor, other: Tensor, **options: Any) -> float:
    near = NearCopies(PixelCosine(device=CPU), **options)
    return near.compare(near.embed(one), near.embed(other)).item()


def enlarged(part: Tensor) -> Tensor:
    return torch.nn.functional.interpolate(part, (16, 16), mode="bilinear", antialias=True)


@pytest.mark.parametrize(
    ("copy", "options"),
    [
        (frame().flip(-1), {"flip": True}),
        (frame(6, 3), {"shift": 2}),
        (frame(2, 4), {"shift": 2}),
        (frame(3, 6).flip(-1), {"flip": True, "shift": 2}),
        (enlarged(frame(4, 4, 12)), {"crop": 0.75}),
        (enlarged(frame(6, 6, 12)), {"crop": 0.75}),
        (enlarged(frame(8, 4, 12)).flip(-1), {"flip": True, "crop": 0.75}),
    ],
)
def test_an_exact_near_copy_has_similarity_one_with_its_option_alone(copy: Tensor, options: dict[str, Any]) -> None:
    assert similar(copy, frame(), **options) == pytest.approx(1, abs=1e-5)
    assert similar(frame(), copy, **options) == pytest.approx(1, abs=1e-5)
    assert similar(copy, frame()) < 0.5
    for name in options:
        others = {key: value for key, value in ALL.items() if key != name}
        assert similar(copy, frame(), **others) < 0.8


def test_a_shift_beyond_the_option_is_no_copy() -> None:
    assert similar(frame(4, 7), frame(), shift=2) < 0.5
    assert similar(frame(4, 7), frame(), shift=3) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(("base", "options"), [(PixelCosine, ALL), (SSIM, {"flip": True})])
def test_it_keeps_the_promises_of_a_similarity(base: type[PixelCosine | SSIM], options: dict[str, Any]) -> None:
    check_similarity(NearCopies(base(device=CPU), **options))


@pytest.mark.parametrize("options", [{}, {"flip": True}, {"shift": 1}, {"crop": 0.75}, ALL])
def test_it_is_never_less_than_what_it_wraps(options: dict[str, Any]) -> None:
    pictures = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    base = PixelCosine(device=CPU)
    near = NearCopies(base, **options)
    itself = base.compare(base.embed(pictures), base.embed(pictures))
    found = near.compare(near.embed(pictures), near.embed(pictures))
    assert (found >= itself).all()
    assert torch.equal(found, itself) is (not options)


def test_a_picture_without_contrast_is_not_defined_and_a_plain_part_does_not_matter() -> None:
    near = NearCopies(PixelCosine(device=CPU), **ALL)
    plain, half = torch.full((1, 3, 16, 16), 0.5), torch.full((1, 3, 16, 16), 0.5)
    half[..., :3, :3] = frame()[..., :3, :3]
    features = near.embed(torch.cat([plain, half, frame()]))
    found = near.compare(features, features)
    assert found[:, 0].isnan().all()
    assert found[:, 1:].isfinite().all()


def test_gradients_flow_to_the_pixels() -> None:
    near = NearCopies(PixelCosine(device=CPU), flip=True, shift=1, crop=0.75)
    target = near.embed(torch.rand(1, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2)))
    images = torch.rand(2, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3), requires_grad=True)
    assert torch.autograd.gradcheck(lambda pixels: near.compare(near.embed(pixels), target), images)


@pytest.mark.parametrize("options", [{"shift": -1}, {"crop": 0.2}, {"crop": 1.0}])
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvMMError, match="of near copies is"):
        NearCopies(PixelCosine(device=CPU), **options)


def test_a_shift_of_half_the_picture_is_refused() -> None:
    with pytest.raises(InvMMError, match="A shift of 8 pixels is too large for images of 16x16"):
        NearCopies(PixelCosine(device=CPU), shift=8).embed(frame())


def test_options_that_ask_for_nothing_are_none() -> None:
    given = {"side": 64, "flip": False, "shift": 0, "crop": 0.8}
    assert split_options(given) == ({"side": 64}, {"crop": 0.8})


MEMORIZED = exact.pictures(5, (1, 8, 8))


def test_a_model_that_gives_the_mirrored_picture_has_not_memorized_it_if_flips_do_not_count() -> None:
    """If they do, it has: that is tested with the way round of a search."""
    plan = planned(exact.Mixture(MEMORIZED), similarity="pixel-cosine", settings={"plain": 256})
    [result] = plan.measure([Target(MEMORIZED[0].flip(-1), "mirrored")])
    assert result.verdict is Verdict.NOT_REPLICATED
    assert result.plain_share
    assert result.plain_share.low == 0


def test_samples_are_not_given_up_where_near_copies_count() -> None:
    model = exact.Mixture(MEMORIZED)
    assert planned(model, similarity="pixel-cosine").recipe.reject == 0.6
    near = planned(model, similarity="pixel-cosine", similarity_options={"flip": True, "shift": 1})
    assert near.recipe.reject == -1
    assert near.recipe.name.endswith(" with reject=-1.0")
    assert near.config["similarity"] == {"name": "pixel-cosine", "threshold": 0.8, "flip": True, "shift": 1}
    chosen = planned(model, similarity=NearCopies(PixelCosine(device=CPU), flip=True), settings={"reject": 0.5})
    assert chosen.recipe.reject == 0.5
    with pytest.raises(InvMMError, match="Near copies's shift"):
        planned(model, similarity="pixel-cosine", similarity_options={"shift": "far"})


def test_a_search_with_gradients_is_the_same_where_copies_are_exact() -> None:
    model, targets = exact.Mixture(MEMORIZED), [Target(MEMORIZED[0], "itself")]
    base = PixelCosine(device=CPU)
    one, other = (
        next(invert(model, targets, similarity, diagonal(), recipe=exact.QUICK))
        for similarity in (base, NearCopies(base, flip=True, shift=1))
    )
    assert one.invmm == other.invmm < 1
