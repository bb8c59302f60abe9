"""Proposals, against the densities of scipy, sample moments, and Gaussian images, whose paths are known."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from invmm_eval.search.proposals import COMPONENTS, Proposal, Proposals, Spread

SHAPE = (1, 2, 3)
DIMENSIONS = math.prod(SHAPE)


def drawn(count: int, seed: int = 0) -> Tensor:
    """Images that vary more in some directions than in others."""
    numbers = torch.Generator().manual_seed(seed)
    mixed = torch.randn(DIMENSIONS, DIMENSIONS, generator=numbers)
    return (torch.randn(count, DIMENSIONS, generator=numbers) @ mixed + 2).reshape(count, *SHAPE)


IMAGES = drawn(400)
SPREAD = Spread.of(IMAGES)
IMAGE = drawn(1, seed=1)
PROPOSALS = Proposals((IMAGE - SPREAD.mean)[0], SPREAD)
RAY = Proposals((IMAGE - SPREAD.mean)[0])


def law(proposals: Proposals, proposal: Proposal) -> MultivariateNormal:
    """The distribution, by what plain noise becomes: a linear map and a mean."""
    unit = torch.eye(DIMENSIONS).reshape(DIMENSIONS, *SHAPE)
    at_zero = proposals.noise(proposal, torch.zeros(1, *SHAPE)).flatten()
    root = proposals.noise(proposal, unit).flatten(1) - at_zero
    return MultivariateNormal(at_zero.double(), (root.T @ root).double())


def test_the_spread_is_that_of_the_images() -> None:
    flat = IMAGES.flatten(1).double().numpy()
    assert torch.allclose(SPREAD.mean.flatten().double(), torch.from_numpy(flat.mean(axis=0)), atol=1e-5)
    components = SPREAD.components.double().numpy()
    assert np.allclose(components @ components.T, np.eye(DIMENSIONS), atol=1e-4)
    covariance = components.T @ np.diag(SPREAD.variances) @ components
    assert np.allclose(covariance, np.cov(flat.T), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("count", "kept"), [(1, 0), (3, 2), (100, COMPONENTS)])
def test_no_more_components_are_kept_than_images_show(count: int, kept: int) -> None:
    images = torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert len(Spread.of(images).variances) == kept
    assert len(Spread.of(torch.cat([images, images])).components) == kept


@pytest.mark.parametrize("nats", [0.01, 1.0, 8.0, 40.0])
@pytest.mark.parametrize("proposals", [PROPOSALS, RAY])
def test_a_proposal_has_its_kl_and_its_density(proposals: Proposals, nats: float) -> None:
    proposal = proposals.at(nats)
    plain = MultivariateNormal(torch.zeros(DIMENSIONS).double(), torch.eye(DIMENSIONS).double())
    assert kl_divergence(law(proposals, proposal), plain).item() == pytest.approx(nats, rel=1e-3)
    noise = torch.randn(50, *SHAPE, generator=torch.Generator().manual_seed(2))
    [expected] = [
        multivariate_normal(one.mean.numpy(), one.covariance_matrix.numpy()).logpdf(noise.flatten(1).numpy())
        for one in [law(proposals, proposal)]
    ]
    expected -= multivariate_normal(np.zeros(DIMENSIONS)).logpdf(noise.flatten(1).numpy())
    shift = Proposal(torch.ones(SHAPE))
    found = proposals.log_ratios(noise, [proposal, Proposal(torch.zeros(SHAPE)), shift])
    assert np.allclose(found[:, 0], expected, rtol=1e-3, atol=1e-3)
    assert found[:, 1].abs().max() == 0
    assert np.allclose(found[:, 2], noise.flatten(1).sum(dim=1) - DIMENSIONS / 2, atol=1e-4)


def test_without_a_spread_plain_noise_is_shifted() -> None:
    proposal = RAY.at(3.0)
    towards = (IMAGE - SPREAD.mean)[0]
    assert torch.allclose(proposal.mean, math.sqrt(6) * towards / towards.norm(), atol=1e-5)
    assert torch.allclose(law(RAY, proposal).covariance_matrix, torch.eye(DIMENSIONS).double(), atol=1e-5)


@pytest.mark.parametrize("signal", [0.1, 0.5, 2.0])
def test_among_gaussian_images_its_paths_lead_through_the_noised_image(signal: float) -> None:
    """The deterministic sampler keeps every noise at its quantile: x_t = alpha m + (alpha^2 S + sigma^2 I)^(1/2) n."""
    alpha, sigma = signal / math.hypot(signal, 1), 1 / math.hypot(signal, 1)
    values, vectors = torch.linalg.eigh(torch.from_numpy(np.cov(IMAGES.flatten(1).double().numpy().T)))
    path = vectors @ (alpha**2 * values + sigma**2).sqrt().diag() @ vectors.T
    grown = 1 + signal**2 * values
    off = vectors.T @ (IMAGE - SPREAD.mean).flatten().double()
    nats = ((signal**2 * off.square() + 1) / grown - 1 + grown.log()).sum().item() / 2
    q = law(PROPOSALS, PROPOSALS.at(nats))
    mean = alpha * SPREAD.mean.flatten().double() + path @ q.mean
    assert torch.allclose(mean, alpha * IMAGE.flatten().double(), atol=1e-2)
    assert torch.allclose(path @ q.covariance_matrix @ path.T, sigma**2 * torch.eye(DIMENSIONS).double(), atol=1e-2)
