"""Each promise of a noise family is broken by a fake that breaks no other."""

from collections.abc import Mapping
from types import SimpleNamespace

import pytest
import torch
from torch import Generator, Tensor

from examples.low_rank_noise import low_rank
from invmm_eval.noise import NoiseFamily
from invmm_eval.noise.gaussian import Gaussian, diagonal, isotropic
from invmm_eval.testing import BrokenPromise, check_noise_family
from tests.helpers.breaches import Breach, after, before, sets, within


class Good(Gaussian):
    """The paper's, made like a tensor."""

    def __init__(self, like: Tensor) -> None:
        super().__init__(torch.zeros(like.shape), torch.zeros(like.shape))


def broken(breach: Breach) -> NoiseFamily:
    return lambda like: breach(Good(like))


def own(like: Tensor) -> Gaussian:
    """Takes the tensor itself as its mean."""
    return Gaussian(like.requires_grad_(), torch.zeros(like.shape))


def memory() -> NoiseFamily:
    """Has the same mean for all images."""
    means: dict[torch.Size, Tensor] = {}

    def family(like: Tensor) -> Gaussian:
        return Gaussian(means.setdefault(like.shape, torch.zeros(like.shape)), torch.zeros(like.shape))

    return family


def guess(like: Tensor) -> Gaussian:
    """Starts from the values of the tensor."""
    return Gaussian(0.01 * like, torch.zeros(like.shape))


def copies(parameters: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    return {name: tensor.detach().clone().requires_grad_() for name, tensor in parameters.items()}


class Hidden(Good):
    """Has a scale of its own, which is not among its parameters."""

    made = 0

    def __init__(self, like: Tensor) -> None:
        super().__init__(like)
        Hidden.made += 1
        self.scale = 1 + 0.02 * (Hidden.made % 2)

    def rsample(self, n: int, generator: Generator) -> Tensor:
        return super().rsample(n, generator) * self.scale


class Mixture(Good):
    """Two Gaussians side by side; its ``kl()`` is the mean of theirs, an upper bound since the KL is convex."""

    def __init__(self, like: Tensor) -> None:
        super().__init__(like)
        self.shift = torch.full((), 0.005).requires_grad_()

    def parameters(self) -> Mapping[str, Tensor]:
        return {**super().parameters(), "shift": self.shift}

    def rsample(self, n: int, generator: Generator) -> Tensor:
        sign = torch.randint(2, (n, *[1] * self.mu.ndim), generator=generator) * 2.0 - 1
        return super().rsample(n, generator) + 20 * self.shift * sign

    def kl(self) -> Tensor:
        shifted = ((self.mu + 20 * self.shift).square() + (self.mu - 20 * self.shift).square()) / 2
        return (shifted + self.logvar.expm1() - self.logvar).mean() / 2


BREACHES: list[tuple[str, NoiseFamily]] = [
    (r"The noise family fails with TypeError .*\(float32 \(1, 2, 3\)\); make", diagonal),  # type: ignore[list-item]
    (r"The distribution has no kl", broken(lambda q: SimpleNamespace(parameters=q.parameters, rsample=q.rsample))),
    (r"parameters\(\) of the distribution returns a list", broken(sets(parameters=list))),
    (r"has no parameters", broken(sets(parameters=dict))),
    (r"'mu' of the distribution is torch.float64", broken(within("mu", Tensor.double))),
    (r"'mu' of the distribution cannot be optimized", broken(within("mu", Tensor.clone))),
    (r"take the tensor they are made like", own),
    (r"share a parameter", memory()),
    (r"Two starts of the family differ", guess),
    (r"parameters\(\) returns other tensors", broken(after("parameters", copies))),
    (r"output of rsample\(20000\) has the shape", broken(after("rsample", lambda n: n.flatten(1)[:, :2]))),
    (r"rsample returns something else", broken(before("rsample", lambda n, _: (n, torch.default_generator)))),
    (r"rsample returns the same", broken(before("rsample", lambda n, _: (n, Generator())))),
    (r"variances from 3.9", broken(after("rsample", lambda n: 2 * n))),
    (r"mean of up to 0.5", broken(after("rsample", lambda n: n + 0.5))),
    (r"output of kl\(\) has the shape \(1,\)", broken(after("kl", lambda kl: kl[None]))),
    (r"kl\(\) is -0.5", broken(after("kl", lambda kl: kl - 0.5))),
    (r"kl\(\) is 0.5", broken(after("kl", lambda kl: kl + 0.5))),
    (r"the parameter 'mu' at its start, from rsample", broken(after("rsample", Tensor.detach))),
    (r"Two distributions with equal parameters are not", Hidden),
    (r"the parameter 'mu' from kl", broken(after("kl", Tensor.detach))),
    (r"at least", broken(after("kl", lambda kl: kl / 2))),
    (r"take the mean over dimensions", broken(after("kl", lambda kl: 6 * kl))),
]


@pytest.mark.parametrize(("sentence", "family"), BREACHES, ids=[sentence for sentence, _ in BREACHES])
def test_a_broken_promise_is_named(sentence: str, family: NoiseFamily) -> None:
    with pytest.raises(BrokenPromise, match=sentence):
        check_noise_family(family)


@pytest.mark.parametrize("family", [diagonal(), isotropic(), low_rank(1), low_rank(8)])
def test_the_built_in_ones_and_the_example_pass(family: NoiseFamily) -> None:
    check_noise_family(family)


def test_where_draws_are_not_gaussian_the_kl_may_be_larger_than_theirs() -> None:
    check_noise_family(Mixture)
