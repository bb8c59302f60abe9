"""Means along one direction."""

import pytest
import torch

from invmm_eval.search.ray import Ray
from tests.helpers.exact import SHAPE


def test_the_mean_moves_to_the_kl_along_the_direction() -> None:
    mu, vector = torch.zeros(SHAPE, requires_grad=True), torch.randn(SHAPE)
    ray = Ray(mu)
    ray.aim(vector)
    assert not mu.any()
    ray.move(2.0)
    assert ray.nats == 2
    torch.testing.assert_close(mu.detach(), 2 * vector / vector.norm())


def test_distances_are_measured_along_the_direction() -> None:
    vector, noise = torch.randn(SHAPE), torch.randn(5, *SHAPE)
    ray = Ray(torch.zeros(SHAPE))
    ray.aim(vector)
    expected = noise.flatten(1) @ (vector / vector.norm()).flatten()
    torch.testing.assert_close(torch.tensor(ray.distances(noise)), expected)


def test_it_takes_the_direction_and_the_kl_of_the_mean() -> None:
    mu = torch.randn(SHAPE)
    ray = Ray(mu)
    ray.aim_at_mean()
    torch.testing.assert_close(ray.direction, mu / mu.norm())
    assert ray.nats == pytest.approx(mu.square().sum().item() / 2)
