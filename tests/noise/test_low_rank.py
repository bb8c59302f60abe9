import pytest
import torch
from torch import Generator, Tensor
from torch.autograd import gradcheck
from torch.distributions import Distribution, LowRankMultivariateNormal, MultivariateNormal, kl_divergence

from invmm_eval.errors import InvMMError
from invmm_eval.noise import Noise
from invmm_eval.noise.low_rank import low_rank

SHAPES = [(2, 3, 4), (5, 6), (7,)]


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def bent(shape: tuple[int, ...], rank: int = 3, seed: int = 0) -> Noise:
    """A member of the family at random parameters."""
    q = low_rank(rank)(torch.zeros(shape))
    with torch.no_grad():
        for parameter in q.parameters().values():
            parameter.normal_(0, 0.7, generator=seeded(seed))
    return q


def truth(q: Noise) -> Distribution:
    """The same distribution over flat noises by torch, in float64."""
    mu, logvar, factor = (q.parameters()[name].detach().double() for name in ("mu", "logvar", "factor"))
    return LowRankMultivariateNormal(mu.flatten(), factor.flatten(0, -2), logvar.exp().flatten())


def standard(dimensions: int) -> Distribution:
    return MultivariateNormal(torch.zeros(dimensions).double(), torch.eye(dimensions).double())


def true_kl(q: Noise) -> Tensor:
    """In nats per dimension."""
    dimensions = q.parameters()["mu"].numel()
    return kl_divergence(truth(q), standard(dimensions)) / dimensions


@pytest.mark.parametrize("rank", [1, 8])
@pytest.mark.parametrize("shape", [*SHAPES, (3, 8, 8), (4, 16, 16)])
def test_it_starts_next_to_the_standard_normal(shape: tuple[int, ...], rank: int) -> None:
    assert true_kl(low_rank(rank)(torch.zeros(shape))) < 1e-9


@pytest.mark.parametrize("rank", [1, 8])
@pytest.mark.parametrize("shape", [(3, 8, 8), (4, 16, 16), (3, 32, 32)])
def test_kl_is_exact_next_to_the_standard_normal(shape: tuple[int, ...], rank: int) -> None:
    assert abs(low_rank(rank)(torch.zeros(shape)).kl()) < 1e-9


@pytest.mark.parametrize("rank", [1, 8])
@pytest.mark.parametrize("shape", SHAPES)
def test_parameters_are_float32_leaves_in_the_shape_of_the_noise(shape: tuple[int, ...], rank: int) -> None:
    parameters = low_rank(rank)(torch.zeros(shape, dtype=torch.float16)).parameters()
    assert {name: tuple(parameter.shape) for name, parameter in parameters.items()} == {
        "mu": shape,
        "logvar": shape,
        "factor": (*shape, rank),
    }
    for parameter in parameters.values():
        assert parameter.is_leaf
        assert parameter.requires_grad
        assert parameter.dtype == torch.float32


def test_every_search_starts_alike_with_parameters_of_its_own() -> None:
    like = torch.zeros(3, 4)
    first, second, third = (low_rank()(like).parameters() for _ in range(3))
    assert first["factor"].shape == (3, 4, 8)
    with torch.no_grad():
        for parameter in first.values():
            parameter.add_(1)
    assert all(torch.equal(second[name], third[name]) for name in second)
    assert not torch.equal(first["factor"], second["factor"])


def test_the_first_step_moves_every_parameter() -> None:
    q = low_rank(4)(torch.zeros(2, 3, 4))
    loss = (q.rsample(8, seeded()) - 1).square().mean() + q.kl()
    for gradient in torch.autograd.grad(loss, list(q.parameters().values())):
        assert gradient.all()


@pytest.mark.parametrize("rank", [1, 3, 40])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(3))
def test_kl_is_that_of_torch(shape: tuple[int, ...], rank: int, seed: int) -> None:
    q = bent(shape, rank, seed)
    assert q.kl().dtype == torch.float32
    assert q.kl().item() == pytest.approx(true_kl(q).item(), rel=1e-5)


def test_kl_is_the_mean_log_ratio_of_its_samples() -> None:
    q = bent((2, 3, 4))
    drawn = q.rsample(20_000, seeded()).detach().double().flatten(1)
    ratios = (truth(q).log_prob(drawn) - standard(24).log_prob(drawn)) / 24
    standard_error = ratios.std() / len(ratios) ** 0.5
    assert abs(q.kl() - ratios.mean()) < 4 * standard_error
    assert standard_error < 0.01 * q.kl()


@pytest.mark.parametrize("shape", [(2, 2, 2), (4, 2), (8,)])
def test_samples_have_its_mean_and_covariance(shape: tuple[int, ...]) -> None:
    q = bent(shape)
    drawn = q.rsample(200_000, seeded())
    assert drawn.shape == (200_000, *shape)
    assert drawn.dtype == torch.float32
    flat = drawn.detach().double().flatten(1)
    torch.testing.assert_close(flat.mean(0), truth(q).mean, atol=0.03, rtol=0)
    factor = q.parameters()["factor"].detach().double().flatten(0, -2)
    variances = q.parameters()["logvar"].detach().double().exp().flatten()
    torch.testing.assert_close(flat.T.cov(), variances.diag() + factor @ factor.T, atol=0.05, rtol=0)


def test_samples_depend_on_the_generator_alone() -> None:
    q, generator = bent((5, 6)), seeded()
    first, second = q.rsample(3, generator), q.rsample(3, generator)
    assert torch.equal(first, q.rsample(3, seeded()))
    assert not torch.equal(first, second)


@pytest.mark.filterwarnings("ignore:.*double precision")
def test_gradients_are_finite_differences() -> None:
    q = bent((2, 3), rank=2)
    parameters = tuple(q.parameters().values())
    assert gradcheck(lambda *_: q.kl(), parameters, eps=1e-2, atol=1e-3, rtol=1e-3)
    assert gradcheck(lambda *_: q.rsample(4, seeded()), parameters, eps=1e-2, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("rank", [0, -3])
def test_a_rank_below_one_is_refused(rank: int) -> None:
    with pytest.raises(InvMMError, match=rf"low-rank-gaussian is {rank}; it must be at least 1\."):
        low_rank(rank)
