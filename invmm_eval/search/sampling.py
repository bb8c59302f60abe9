"""The one deterministic sampler: DDIM with eta = 0, written in terms of x_0, and its second-order refinement.

    x_s = alpha_s * x_0 + sigma_s * (x_t - alpha_t * x_0) / sigma_t,   x_0 the estimate at time t

(Song et al. 2021, "Denoising Diffusion Implicit Models", equation 12). On the straight path of a rectified flow this
is Euler's method, so it serves every family of models. DPM-Solver++(2M) (Lu et al. 2022, "DPM-Solver++: Fast Solver
for Guided Sampling of Diffusion Probabilistic Models", algorithm 2) takes the same step from an x_0 that goes on along
the line through the last two estimates, for half of the step in the log-ratio ``lambda = log(alpha / sigma)``:

    x_0 + (x_0 - previous x_0) * (lambda_s - lambda_t) / (2 * (lambda_t - previous lambda))

Guidance (Ho and Salimans 2022, "Classifier-Free Diffusion Guidance") is linear in the network's output and so in x_0:
``x_0 = null + g * (conditional - null)``.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from invmm_eval.errors import InvMMError
from invmm_eval.models.backbone import Backbone
from invmm_eval.models.condition import Context, join, rows
from invmm_eval.models.schedule import Schedule, broadcast


def chunks(length: int, size: int) -> list[slice]:
    """Consecutive slices of at most ``size`` that cover ``length`` rows."""
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def predict_x0(backbone: Backbone, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
    """The backbone's estimate, held to its promise.

    Raises:
        InvMMError: The estimate is not float32 in the shape of ``x_t``.
    """
    x_0 = backbone.predict_x0(x_t, t, context)
    if x_0.shape != x_t.shape or x_0.dtype != torch.float32:
        raise InvMMError(
            f"The backbone's predict_x0 returned {x_0.dtype} of shape {tuple(x_0.shape)} for x_t of shape "
            f"{tuple(x_t.shape)}; it must return torch.float32 of the same shape."
        )
    return x_0


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
) -> Tensor:
    """Images of ``noise``, float32 in [0, 1], one for each row.

    Args:
        backbone: The model.
        noise: Noises, first dimension n, on the model's device.
        context: n contexts.
        null: n contexts of the unconditional pass.
        guidance: Scale for each row, shape ``(n,)``; rows at scale 1 take no unconditional pass.
        steps: Sampler steps.
        micro_batch: At most so many rows are sampled together.
        sampler: One of :data:`invmm_eval.recipe.SAMPLERS`.

    Raises:
        InvMMError: The backbone breaks its promise on shapes.
    """
    path = _path(backbone.schedule, steps, sampler)
    images = [
        backbone.decode(_sample(backbone, noise[cut], rows(context, cut), rows(null, cut), guidance[cut], path))
        for cut in chunks(len(noise), micro_batch)
    ]
    return torch.cat(images)


_Path = Sequence[tuple[Tensor, Tensor, float]]
"""From which time to which each step goes, and how far x_0 is taken on along its line."""


def _path(schedule: Schedule, steps: int, sampler: str) -> _Path:
    times = schedule.grid(steps)
    ahead = [0.0] * (len(times) - 1)
    if sampler == "dpm-solver++":
        alpha, sigma = (level.double() for level in schedule(times))
        lengths = (alpha / sigma).log().diff()
        shares = lengths[1:] / (2 * lengths[:-1])
        # The first step has no estimate before it, and one to pure data (sigma 0) no length.
        ahead[1:] = torch.where(shares.isfinite(), shares, 0).tolist()
    return [(t, s, share) for (t, s), share in zip(pairwise(times), ahead, strict=True)]


def _sample(
    backbone: Backbone, noise: Tensor, context: Context, null: Context, guidance: Tensor, path: _Path
) -> Tensor:
    guided = (guidance != 1).nonzero()[:, 0]
    scale = broadcast(guidance[guided].float(), noise)
    if len(guided):
        context = join([context, rows(null, guided)])
    x_t = before = noise
    for t, s, share in path:
        both = torch.cat([x_t, x_t[guided]]) if len(guided) else x_t
        estimate = predict_x0(backbone, both, t.expand(len(both)), context)
        x_0 = estimate[: len(x_t)]
        if len(guided):
            unconditional = estimate[len(x_t) :]
            x_0 = x_0.index_copy(0, guided, unconditional + scale * (x_0[guided] - unconditional))
        if backbone.clip is not None:
            x_0 = x_0.clamp(-backbone.clip, backbone.clip)
        alpha_t, sigma_t = backbone.schedule(t)
        alpha_s, sigma_s = backbone.schedule(s)
        x_0, before = x_0 + share * (x_0 - before), x_0
        x_t = alpha_s * x_0 + sigma_s * (x_t - alpha_t * x_0) / sigma_t
    return x_t
