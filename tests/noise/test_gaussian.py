import pytest
import torch
from torch import Generator, Tensor
from torch.distributions import Distribution, Independent, Normal, kl_divergence

from invmm_eval.noise import Noise, NoiseFamily
from invmm_eval.noise.gaussian import diagonal, isotropic

FAMILIES = [diagonal(), isotropic()]
SHAPES = [(2, 3, 4), (5, 6), (7,)]


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> NoiseFamily:
    made: NoiseFamily = request.param
    return made


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def bent(family: NoiseFamily, shape: tuple[int, ...], seed: int = 0) -> Noise:
    """A member of the family at random parameters."""
    q = family(torch.zeros(shape))
    with torch.no_grad():
        for parameter in q.parameters().values():
            parameter.normal_(0, 0.7, generator=seeded(seed))
    return q


def truth(q: Noise) -> Distribution:
    """The same distribution by torch, in float64."""
    mu, logvar = (q.parameters()[name].detach().double() for name in ("mu", "logvar"))
    return Independent(Normal(mu, (logvar / 2).exp().expand_as(mu)), mu.ndim)


def standard(like: Tensor) -> Distribution:
    return Independent(Normal(torch.zeros_like(like), torch.ones_like(like)), like.ndim)


@pytest.mark.parametrize("shape", SHAPES)
def test_it_starts_as_the_standard_normal(family: NoiseFamily, shape: tuple[int, ...]) -> None:
    q = family(torch.full(shape, 3.0, dtype=torch.float64))
    assert q.kl() == 0
    drawn = q.rsample(5, seeded())
    assert drawn.shape == (5, *shape)
    assert drawn.dtype == torch.float32
    assert torch.equal(drawn, torch.randn((5, *shape), generator=seeded()))


def test_the_isotropic_family_has_one_variance() -> None:
    like = torch.zeros(2, 3, 4)
    sizes = [{name: parameter.numel() for name, parameter in family(like).parameters().items()} for family in FAMILIES]
    assert sizes == [{"mu": 24, "logvar": 24}, {"mu": 24, "logvar": 1}]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(3))
def test_kl_is_that_of_torch(family: NoiseFamily, shape: tuple[int, ...], seed: int) -> None:
    q = bent(family, shape, seed)
    mean = truth(q).mean
    expected = kl_divergence(truth(q), standard(mean)) / mean.numel()
    assert q.kl().dtype == torch.float32
    assert q.kl().item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("size", [1e-1, 1e-2, 1e-3, 1e-4, 1e-5])
def test_kl_is_not_negative_near_the_standard_normal(family: NoiseFamily, size: float) -> None:
    for seed in range(20):
        q = family(torch.zeros(3, 4, 4))
        with torch.no_grad():
            q.parameters()["logvar"].uniform_(-size, size, generator=seeded(seed))
        assert q.kl() >= 0
