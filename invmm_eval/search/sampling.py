"""The one deterministic sampler: DDIM with eta = 0, written in terms of x_0, and its second-order refinement.

    x_s = alpha_s * x_0 + sigma_s * (x_t - alpha_t * x_0) / sigma_t,   x_0 the estimate at time t

(Song et al. 2021, "Denoising Diffusion Implicit Models", equation 12). On the straight path of a rectified flow this
is Euler's method, so it serves every family of models. DPM-Solver++(2M) (Lu et al. 2022, "DPM-Solver++: Fast Solver
for Guided Sampling of Diffusion Probabilistic Models", algorithm 2) takes the same step from an x_0 extrapolated along
the line through the last two estimates, by half of the step in the log-ratio ``lambda = log(alpha / sigma)``:

    x_0 + (x_0 - previous x_0) * (lambda_s - lambda_t) / (2 * (lambda_t - previous lambda))

Guidance (Ho and Salimans 2022, "Classifier-Free Diffusion Guidance") is linear in the network's output and so in x_0:
``x_0 = null + g * (conditional - null)``.

Models that are made for few steps sample by their own scheduler (:mod:`invmm_eval.models.few_steps`). Where it is
stochastic, the noise of a search is the first one, which users can choose; the noise of later steps is drawn anew, as
for plain samples, by random numbers that the signs of the first one seed: its last digits differ between devices and
numbers of rows. So a sample is a function of its first noise.
"""

import hashlib
from collections.abc import Mapping
from itertools import compress
from typing import NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn.functional import cosine_similarity

from invmm_eval.device import to_device
from invmm_eval.errors import InvMMError
from invmm_eval.models.backbone import Backbone
from invmm_eval.models.condition import Context, join, rows
from invmm_eval.models.schedule import broadcast


def chunks(length: int, size: int) -> list[slice]:
    """Consecutive slices of at most ``size`` that cover ``length`` rows."""
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def verified(x_0: Tensor, x_t: Tensor) -> Tensor:
    """A backbone's estimate ``x_0`` from ``x_t``, if it has the promised type and shape.

    Raises:
        InvMMError: The estimate is not float32 in the shape of ``x_t``.
    """
    if x_0.shape != x_t.shape or x_0.dtype != torch.float32:
        raise InvMMError(
            f"The backbone's predict_x0 returned {x_0.dtype} of shape {tuple(x_0.shape)} for x_t of shape "
            f"{tuple(x_t.shape)}; it must return torch.float32 of the same shape."
        )
    return x_0


@torch.no_grad()
def estimated(backbone: Backbone, x_t: Tensor, t: Tensor, context: Context, micro_batch: int) -> Tensor:
    """The backbone's estimates of x_0.

    Args:
        backbone: The model.
        x_t: Noised data, ``(n, ...)``.
        t: One time, a scalar tensor.
        context: n contexts.
        micro_batch: Maximum number of rows of a network call.

    Returns:
        In the shape of ``x_t``.

    Raises:
        InvMMError: They are not float32 in the shape of ``x_t``.
    """
    estimates = []
    for cut in chunks(len(x_t), micro_batch):
        x0_hat = backbone.predict_x0(x_t[cut], t.expand(len(x_t[cut])), rows(context, cut))
        estimates.append(verified(x0_hat, x_t[cut]))
    return torch.cat(estimates)


class Rejection(NamedTuple):
    """Which rows are given up: the image of such a row is then the estimate of x_0 at that step.

    A row goes on where the estimate agrees with the image in two ways: by the cosine of both less the mean of their
    own pixels, and of both less the mean of the model's images.

    Attributes:
        target: The encoded image that each row is to become, ``(n, ...)``.
        mean: The mean of the model's images, encoded, ``(1, ...)``.
        least: By index of the sampler step, the least cosine of each row that goes on, ``(n,)``, on the CPU.
    """

    target: Tensor
    mean: Tensor
    least: Mapping[int, Tensor]

    def goes_on(self, x_0: Tensor, step: int, index: Tensor) -> Tensor:
        """Whether each of some rows goes on, on the CPU: the one place where the sampler's host waits for the device.

        Args:
            x_0: Estimates, ``(k, ...)``.
            step: Index of the sampler step, one of :attr:`least`.
            index: Of these rows among all, ``(k,)``, on the CPU.
        """
        target = self.target[to_device(index, x_0.device)]
        by_pixels, by_mean = _centred_cosine(x_0, target), _cosine(x_0 - self.mean, target - self.mean)
        return torch.minimum(by_pixels, by_mean).cpu() >= self.least[step][index]


class _Step(NamedTuple):
    """A step from time t to time s; all are scalar tensors on the model's device.

    Attributes:
        t: The time from which it goes.
        alpha_t: The levels there.
        sigma_t: See ``alpha_t``.
        alpha_s: The levels to which it goes.
        sigma_s: See ``alpha_s``.
        share: How far x_0 is extrapolated along the line through the last two estimates; None of DDIM.
        fresh: How much new noise is added.
    """

    t: Tensor
    alpha_t: Tensor
    sigma_t: Tensor
    alpha_s: Tensor
    sigma_s: Tensor
    share: Tensor | None
    fresh: float = 0.0


def _path(backbone: Backbone, steps: int, sampler: str) -> tuple[float, list[_Step]]:
    """What the noise is multiplied by, and all steps, computed at once, so that no step looks a level up."""
    schedule = backbone.schedule
    if sampler == "own":
        return _own_path(backbone, steps)
    times = schedule.grid(steps)
    alpha, sigma = schedule(times)
    shares: list[Tensor | None] = [None] * (len(times) - 1)
    if sampler == "dpm-solver++":
        lengths = (alpha.double() / sigma.double()).log().diff()
        ratios = lengths[1:] / (2 * lengths[:-1])
        # The first step has no previous estimate, and a step to pure data (sigma 0) has no length.
        shares = list(torch.cat([ratios.new_zeros(1), torch.where(ratios.isfinite(), ratios, 0)]).float())
    return 1.0, list(map(_Step, times, alpha, sigma, alpha[1:], sigma[1:], shares))


def _own_path(backbone: Backbone, steps: int) -> tuple[float, list[_Step]]:
    read = getattr(backbone, "own_path", None)
    if read is None:
        raise InvMMError("This backbone does not know its model's own sampler; take ddim or dpm-solver++.")
    start, own = read(steps)
    times = to_device(torch.tensor([step.t for step in own]), backbone.device)
    following = to_device(torch.tensor([step[1:3] for step in own]).T, backbone.device)
    fresh = [step.fresh for step in own]
    return start, list(map(_Step, times, *backbone.schedule(times), *following, [None] * len(own), fresh))


def _fresh(noise: Tensor) -> list[Generator]:
    """Random numbers of each row of ``noise``, which no other rows change."""
    digests = [hashlib.sha256((row > 0).numpy().tobytes()).digest() for row in noise.cpu()]
    return [Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1) for digest in digests]


@torch.no_grad()
def sample(
    backbone: Backbone,
    noise: Tensor,
    context: Context,
    null: Context,
    guidance: Tensor,
    *,
    steps: int,
    micro_batch: int,
    sampler: str = "ddim",
    clip: bool = True,
    rejection: Rejection | None = None,
    decoded: bool = True,
) -> Tensor:
    """Sample one image per row of ``noise``.

    Args:
        backbone: The model.
        noise: Initial noises, ``(n, ...)``, on the model's device.
        context: n contexts.
        null: n contexts of the unconditional pass.
        guidance: Guidance scale of each row, ``(n,)``, on the CPU; rows at scale 1 take no unconditional pass, and rows
            at scale 0 that pass alone.
        steps: Number of sampler steps, at least 1.
        micro_batch: Maximum number of images sampled together, at least 1; guided ones take two rows each.
        sampler: ``ddim``, ``dpm-solver++``, or ``own``, that of the model's scheduler.
        clip: Whether estimates of x_0 are clipped where the model's own scheduler clips them.
        rejection: Which rows are given up on the way; None gives none up.
        decoded: Whether the samples are decoded.

    Returns:
        Images ``(n, C, H, W)``, float32 in [0, 1]; if they are not decoded, x_0 in the shape of ``noise``.

    Raises:
        InvMMError: The backbone's estimates are not float32 in the shape of the noise, or it does not know its model's
            own sampler.
    """
    start, path = _path(backbone, steps, sampler)
    adds_noise = any(step.fresh for step in path)
    samples = []
    for cut in chunks(len(noise), micro_batch):
        x_t, scales, contexts, nulls = start * noise[cut], guidance[cut], rows(context, cut), rows(null, cut)
        fresh = _fresh(noise[cut]) if adds_noise else []
        previous = finished = x_t
        alive = torch.arange(cut.start, cut.start + len(x_t))
        guided, scale, both = _guided(scales, contexts, nulls, x_t)
        for index, step in enumerate(path):
            inputs = torch.cat([x_t, x_t[guided]]) if len(guided) else x_t
            estimate = verified(backbone.predict_x0(inputs, step.t.expand(len(inputs)), both), inputs)
            x_0 = estimate[: len(x_t)]
            if len(guided):
                unconditional = estimate[len(x_t) :]
                x_0 = x_0.index_copy(0, guided, unconditional + scale * (x_0[guided] - unconditional))
            if clip and backbone.clip is not None:
                x_0 = x_0.clamp(-backbone.clip, backbone.clip)
            if rejection is not None and index in rejection.least:
                goes_on = rejection.goes_on(x_0, index, alive)
                if not goes_on.all():
                    finished = _put(finished, alive - cut.start, x_0)
                    alive, fresh = alive[goes_on], list(compress(fresh, goes_on.tolist()))
                    kept = to_device(goes_on.nonzero()[:, 0], x_0.device)
                    x_0, x_t, previous = x_0[kept], x_t[kept], previous[kept]
                    if not len(kept):
                        break
                    scales, contexts, nulls = scales[goes_on], rows(contexts, kept), rows(nulls, kept)
                    guided, scale, both = _guided(scales, contexts, nulls, x_t)
            if step.share is not None:
                x_0, previous = x_0 + step.share * (x_0 - previous), x_0
            x_t = step.alpha_s * x_0 + step.sigma_s * (x_t - step.alpha_t * x_0) / step.sigma_t
            if step.fresh:
                new = torch.stack([torch.randn(x_t.shape[1:], generator=own) for own in fresh])
                x_t = x_t + step.fresh * to_device(new, x_t.device)
        x_0 = _put(finished, alive - cut.start, x_t)
        samples.append(backbone.decode(x_0) if decoded else x_0)
    return torch.cat(samples)


def _guided(scales: Tensor, context: Context, null: Context, like: Tensor) -> tuple[Tensor, Tensor, Context]:
    """The rows that take two passes, their scales, and the contexts of all rows and of the second passes.

    ``scales`` is on the CPU, so that the host knows these rows without waiting for the device.
    """
    is_guided = (scales != 0) & (scales != 1)
    guided = to_device(is_guided.nonzero()[:, 0], like.device)
    scale = broadcast(to_device(scales[is_guided].float(), like.device), like)
    if (scales == 0).any():
        taken = to_device(torch.arange(len(scales)) + len(scales) * (scales == 0), like.device)
        context = rows(join([context, null]), taken)
    return guided, scale, join([context, rows(null, guided)]) if len(guided) else context


def _put(all_rows: Tensor, index: Tensor, some: Tensor) -> Tensor:
    """All rows, some of them replaced; the index is on the CPU."""
    return some if len(some) == len(all_rows) else all_rows.index_copy(0, to_device(index, some.device), some)


def _centred_cosine(one: Tensor, other: Tensor) -> Tensor:
    return _cosine(*(x.flatten(1) - x.flatten(1).mean(dim=1, keepdim=True) for x in (one, other)))


def _cosine(one: Tensor, other: Tensor) -> Tensor:
    return cosine_similarity(one.flatten(1), other.flatten(1))
