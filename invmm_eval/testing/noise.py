"""Checks that a noise family keeps the promises of :class:`~invmm_eval.plugin.NoiseFamily` and has the right KL."""

from collections.abc import Mapping

import torch
from torch import Tensor

from invmm_eval.noise import Noise, NoiseFamily
from invmm_eval.testing.promises import checked, near, promise, require_leaves, require_tensor, seeded, watched

DRAWS = 20_000
SHAPES = ((1, 2, 3), (4, 2))
"""The shape of an image, and one like that of packed latents."""

START = 0.01
"""Largest KL at the start, in nats per dimension."""

MOMENTS = 0.1
"""Largest distance of mean and variance from 0 and 1 at the start: seven standard errors of the draws."""

STEP = 0.3
"""Standard deviation of the random move of the parameters."""

KL_ERROR = 0.05
"""Largest relative difference between the KL and that of the draws."""


def check_noise_family(family: NoiseFamily) -> None:
    """Check a noise family in a few dimensions, at the start and after a random move of the parameters.

    The KL is compared with the draws: of all distributions with their mean and covariance the Gaussian has the smallest
    KL from the standard normal, so that its KL is a lower bound, and the exact value if the draws are Gaussian.

    Raises:
        BrokenPromise: Which promise is broken, and how to fix it, in one sentence.
    """
    family = watched(family, "The noise family")
    for shape in SHAPES:
        like = torch.zeros(shape)
        _require_start(family, like)
        _require_moved(family, like)


def _require_start(family: NoiseFamily, like: Tensor) -> None:
    q = checked(family(like), Noise, "The distribution")
    other = family(torch.randn(like.shape, generator=seeded()))
    parameters, others = q.parameters(), other.parameters()
    require_leaves(parameters, "the distribution", like.device)
    promise(bool(parameters), "The distribution has no parameters; there is nothing to optimize.")
    promise(
        not like.requires_grad and not any(mine is its for mine in parameters.values() for its in others.values()),
        "Two distributions share a parameter, or take the tensor they are made like; make new ones for each image.",
    )
    promise(
        parameters.keys() == others.keys() and all(torch.equal(parameters[name], others[name]) for name in parameters),
        "Two starts of the family differ; take only shape and device from the tensor they are made like, and random "
        "numbers of a fixed seed.",
    )
    promise(
        all(tensor is parameters[name] for name, tensor in q.parameters().items()),
        "The distribution's parameters() returns other tensors at every call; return the ones it computes with.",
    )
    n = q.rsample(DRAWS, seeded())
    require_tensor(n, f"The output of rsample({DRAWS})", shape=(DRAWS, *like.shape), device=like.device)
    promise(
        torch.equal(n, q.rsample(DRAWS, seeded())),
        "The distribution's rsample returns something else for the same generator; draw from the generator alone.",
    )
    promise(
        not torch.equal(n, q.rsample(DRAWS, seeded(seed=1))),
        "The distribution's rsample returns the same whatever the generator; draw from the generator.",
    )
    n = n.detach().flatten(1)
    mean, variance = n.mean(dim=0).abs().max(), n.var(dim=0)
    promise(
        bool(mean <= MOMENTS and (variance - 1).abs().max() <= MOMENTS),
        f"At its start a dimension of the distribution has a mean of up to {mean:.2f} and variances from "
        f"{variance.min():.2f} to {variance.max():.2f}; start at the standard normal.",
    )
    kl = q.kl()
    _require_kl(kl)
    promise(
        bool(kl <= START),
        f"At its start the distribution's kl() is {kl:.4f}; start at the standard normal, where it is 0.",
    )
    _require_reached(
        q.rsample(64, seeded()), parameters, "at its start, from rsample, so that the search cannot leave it"
    )


def _require_moved(family: NoiseFamily, like: Tensor) -> None:
    q, restored = family(like), family(like)
    move = seeded(seed=1)
    with torch.no_grad():
        for tensor in q.parameters().values():
            tensor += STEP * torch.randn(tensor.shape, generator=move).to(tensor.device)
        for name, tensor in restored.parameters().items():
            tensor.copy_(q.parameters()[name])
    n, kl = q.rsample(DRAWS, seeded()), q.kl()
    _require_kl(kl)
    promise(
        near(restored.rsample(DRAWS, seeded()), n) and near(restored.kl(), kl),
        "Two distributions with equal parameters are not equal; keep all state in the parameters.",
    )
    _require_reached(n, q.parameters(), "from rsample")
    _require_reached(kl, q.parameters(), "from kl()")
    draws = n.detach().flatten(1).double()
    mean, covariance = draws.mean(dim=0), draws.T.cov()
    fitted = (covariance.trace() + mean @ mean - covariance.logdet() - len(mean)) / 2 / len(mean)
    promise(
        bool(kl >= (1 - KL_ERROR) * fitted),
        f"kl() is {kl:.4f}, but draws with their mean and covariance are at least {fitted:.4f} nats per dimension "
        "away from the standard normal; rsample and kl() must describe one distribution.",
    )
    promise(
        bool(kl <= (1 + KL_ERROR) * fitted) or not _gaussian(draws - mean, covariance),
        f"kl() is {kl:.4f}, but the Gaussian that is drawn from is {fitted:.4f} nats per dimension away from the "
        "standard normal; take the mean over dimensions, and rsample and kl() must describe one distribution.",
    )


def _gaussian(centred: Tensor, covariance: Tensor) -> bool:
    """Whether no whitened dimension has a skewness or an excess kurtosis that 20,000 Gaussian draws never have."""
    whitened = torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), centred.T, upper=False)
    skewness, kurtosis = (whitened**3).mean(dim=1), (whitened**4).mean(dim=1) - 3
    return bool(skewness.abs().max() < 0.1 and kurtosis.abs().max() < 0.2)


def _require_kl(kl: Tensor) -> None:
    require_tensor(kl, "The output of kl()", shape=(), device=kl.device)
    promise(bool(kl >= -1e-6), f"kl() is {kl:.4f}; a KL is never below 0.")


def _require_reached(value: Tensor, parameters: Mapping[str, Tensor], whence: str) -> None:
    gradients: tuple[Tensor | None, ...] = (None,) * len(parameters)
    if value.requires_grad:
        weights = torch.randn(value.shape, generator=seeded(seed=2)).to(value.device)
        gradients = torch.autograd.grad((weights * value).sum(), list(parameters.values()), allow_unused=True)
    for name, gradient in zip(parameters, gradients, strict=True):
        promise(
            gradient is not None and bool(gradient.isfinite().all()) and bool(gradient.any()),
            f"No usable gradient reaches the parameter {name!r} {whence}; compute it from the parameters alone.",
        )
