"""The example of a noise family: its KL and its samples are those of torch's distribution."""

import pytest
import torch
from torch import Generator
from torch.distributions import LowRankMultivariateNormal, MultivariateNormal, kl_divergence

from examples.low_rank_noise import LowRankGaussian, low_rank
from invmm_eval.errors import InvMMError

DIMENSIONS = 24


@pytest.fixture
def q() -> LowRankGaussian:
    """A member of the family at random parameters."""
    found = LowRankGaussian(torch.zeros(2, 3, 4), rank=3)
    with torch.no_grad():
        for parameter in found.parameters().values():
            parameter.normal_(0, 0.7, generator=Generator().manual_seed(0))
    return found


def truth(q: LowRankGaussian) -> LowRankMultivariateNormal:
    mu, logvar, factor = (parameter.detach().double() for parameter in q.parameters().values())
    return LowRankMultivariateNormal(mu.flatten(), factor.flatten(0, -2), logvar.exp().flatten())


def test_its_kl_is_that_of_torch(q: LowRankGaussian) -> None:
    standard = MultivariateNormal(torch.zeros(DIMENSIONS).double(), torch.eye(DIMENSIONS).double())
    expected = kl_divergence(truth(q), standard) / DIMENSIONS
    assert q.kl().item() == pytest.approx(expected.item(), rel=1e-5)
    assert abs(low_rank(8)(torch.zeros(4, 16, 16)).kl()) < 1e-9


def test_its_samples_have_its_mean_and_covariance(q: LowRankGaussian) -> None:
    flat = q.rsample(200_000, Generator().manual_seed(0)).detach().double().flatten(1)
    torch.testing.assert_close(flat.mean(0), truth(q).mean, atol=0.03, rtol=0)
    torch.testing.assert_close(flat.T.cov(), truth(q).covariance_matrix, atol=0.05, rtol=0)


def test_a_rank_below_one_is_refused() -> None:
    with pytest.raises(InvMMError, match=r"low-rank-gaussian is 0; it must be at least 1\."):
        low_rank(0)
