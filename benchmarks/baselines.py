"""Other detectors of memorization and membership, each as its paper defines it, for any backbone of ``invmm_eval``.

A detector takes a backbone and images, float32 ``(n, C, H, W)`` in [0, 1], or their captions, and gives one score per
image: the larger, the more likely the image is a member, or memorized. Its cost is counted by
:class:`~benchmarks.common.counting.Counted`. ``share`` is a time, in (0, 1] of the way from clean to noisiest.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from invmm_eval.models.backbone import Backbone
from invmm_eval.models.condition import join
from invmm_eval.models.schedule import Schedule
from invmm_eval.search.sampling import chunks, sample
from invmm_eval.similarity import Similarity

ROWS = 256  # maximum batch size of a network call


def loss(backbone: Backbone, images: Tensor, *, share: float, draws: int = 16, seed: int = 0) -> Tensor:
    """The negative training loss ``|noise_hat(alpha_t x_0 + sigma_t n, t) - n|^2`` at one time.

    Carlini et al. 2023, "Extracting Training Data from Diffusion Models", section 5.2; Matsumoto et al. 2023,
    "Membership Inference Attacks against Diffusion Models". Averaged over dimensions, and over ``draws`` noises that
    are the same for all images.
    """
    x_0 = _encoded(backbone, images)
    t = time_at(backbone.schedule, share)
    alpha_t, sigma_t = backbone.schedule(t)
    noises = torch.randn(draws, *x_0.shape[1:], generator=torch.Generator().manual_seed(seed)).to(x_0.device)
    x_t = alpha_t * x_0[:, None] + sigma_t * noises
    _, found = estimate(backbone, x_t.flatten(0, 1), t)
    return -(found.view_as(x_t) - noises).square().flatten(1).mean(dim=1)


def secmi(backbone: Backbone, images: Tensor, *, steps: int = 100, to: int = 10) -> Tensor:
    """The negative error of the DDIM step from ``to`` to ``to + 1`` of ``steps`` and back, averaged over dimensions.

    Duan et al. 2023, "Are Diffusion Models Vulnerable to Membership Inference Attacks?", equation 9 (SecMI,
    statistic). The image is first carried deterministically to step ``to``. The paper's 100 steps are 10 training times
    each.
    """
    x = _encoded(backbone, images)
    times = backbone.schedule.grid(steps).flip(0)[1:]
    for t, s in pairwise(times[:to]):
        x = ddim(backbone, x, t, s)
    t, s = times[to - 1], times[to]
    back = ddim(backbone, ddim(backbone, x, t, s), s, t)
    return -(back - x).square().flatten(1).mean(dim=1)


def pia(backbone: Backbone, images: Tensor, *, share: float = 0.2) -> Tensor:
    """The negative error ``|noise_hat(alpha_t x_0 + sigma_t n_0, t) - n_0|`` in the 4-norm.

    Kong et al. 2024, "An Efficient Membership Inference Attack for the Diffusion Model by Proximal Initialization",
    equation 9 (PIA). ``n_0`` is the noise that the model estimates in the clean image.
    """
    x_0 = _encoded(backbone, images)
    _, n_0 = estimate(backbone, x_0, backbone.schedule.grid(1000)[-2])
    t = time_at(backbone.schedule, share)
    alpha_t, sigma_t = backbone.schedule(t)
    _, n_t = estimate(backbone, alpha_t * x_0 + sigma_t * n_0, t)
    error: Tensor = torch.linalg.vector_norm((n_t - n_0).flatten(1), ord=4, dim=1)
    return -error


def sampled(
    backbone: Backbone, images: Tensor, similarity: Similarity, *, samples: int, steps: int, seed: int = 0
) -> Tensor:
    """The similarity of each plain sample, made in ``steps`` sampler steps, to each image: ``(samples, n)``.

    Its maximum over samples is the score of Carlini et al. 2023, section 5.1: draw, compare, count.
    """
    generator = torch.Generator().manual_seed(seed)
    shape = _encoded(backbone, images[:1]).shape[1:]
    features = similarity.embed(images.to(backbone.device))
    found = []
    for start in range(0, samples, ROWS):
        n = min(ROWS, samples - start)
        noise = torch.randn(n, *shape, generator=generator).to(backbone.device)
        condition, ones = backbone.condition(), torch.ones(n, device=backbone.device)
        context = condition.rsample(n, torch.Generator(backbone.device).manual_seed(seed))
        drawn = sample(backbone, noise, context, condition.null(n), ones, steps=steps, micro_batch=ROWS)
        found.append(similarity.compare(similarity.embed(drawn), features).cpu())
    return torch.cat(found)


@torch.no_grad()
def caption_magnitude(
    backbone: Backbone, captions: Sequence[str], *, guidance: float, steps: int, draws: int = 4, seed: int = 0
) -> Tensor:
    """``|noise_hat(x_t, t, caption) - noise_hat(x_t, t, empty)|``, averaged along guided sampling with the caption.

    Wen et al. 2024, "Detecting, Explaining, and Mitigating Memorization in Diffusion Models", equation 3, in the
    2-norm, averaged over the steps and over ``draws`` noises that are the same for all captions. It takes no image.
    """
    channels, height, width = backbone.image_shape
    shape = _encoded(backbone, torch.zeros(1, channels, height, width)).shape[1:]
    noise = torch.randn(draws, *shape, generator=torch.Generator().manual_seed(seed)).to(backbone.device)
    return torch.stack([_magnitude(backbone, caption, noise, guidance, steps) for caption in captions])


def _magnitude(backbone: Backbone, caption: str, noise: Tensor, guidance: float, steps: int) -> Tensor:
    condition, n = backbone.condition(caption), len(noise)
    context = condition.rsample(n, torch.Generator(backbone.device).manual_seed(0))
    both = join([context, condition.null(n)])
    x_t, magnitudes = noise, []
    for t, s in pairwise(backbone.schedule.grid(steps)):
        (alpha_t, sigma_t), (alpha_s, sigma_s) = backbone.schedule(t), backbone.schedule(s)
        with_caption, without = backbone.predict_x0(torch.cat([x_t, x_t]), t.expand(2 * n), both).chunk(2)
        moved = alpha_t / sigma_t * (with_caption - without)
        magnitudes.append(torch.linalg.vector_norm(moved.flatten(1), dim=1))
        x_0 = without + guidance * (with_caption - without)
        if backbone.clip is not None:
            x_0 = x_0.clamp(-backbone.clip, backbone.clip)
        x_t = alpha_s * x_0 + sigma_s * (x_t - alpha_t * x_0) / sigma_t
    return torch.stack(magnitudes).mean()


@torch.no_grad()
def _encoded(backbone: Backbone, images: Tensor) -> Tensor:
    return backbone.encode(images.to(backbone.device))


def time_at(schedule: Schedule, share: float) -> Tensor:
    """The time at ``share`` of the way from clean to noisiest, to a hundredth."""
    return schedule.grid(100)[100 - max(1, round(100 * share))]


@torch.no_grad()
def estimate(backbone: Backbone, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """The estimates of x_0 and of the noise ``(x_t - alpha_t x_0) / sigma_t`` at one time, without a caption."""
    condition = backbone.condition()
    generator = torch.Generator(backbone.device).manual_seed(0)
    x_0 = torch.cat(
        [
            backbone.predict_x0(rows, t.expand(len(rows)), condition.rsample(len(rows), generator))
            for rows in (x_t[cut] for cut in chunks(len(x_t), ROWS))
        ]
    )
    alpha_t, sigma_t = backbone.schedule(t)
    return x_0, (x_t - alpha_t * x_0) / sigma_t


def ddim(backbone: Backbone, x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """One deterministic step from time ``t`` to time ``s``, in either direction (Song et al. 2021, equation 12)."""
    x_0, noise = estimate(backbone, x_t, t)
    alpha_s, sigma_s = backbone.schedule(s)
    return alpha_s * x_0 + sigma_s * noise
