"""Other detectors of memorization and membership on plain tensors of images, or on captions.

The detectors are those of :mod:`invmm_eval.search.screening`, each as its paper defines it. Here they take a backbone
and images, float32 ``(n, C, H, W)`` in [0, 1], or captions, and give one score per image: the larger, the more likely
the image is a member, or memorized. Their cost is counted by :class:`~benchmarks.common.counting.Counted`. ``share`` is
a time, in (0, 1] of the way from clean to noisiest.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from invmm_eval.models.backbone import Backbone
from invmm_eval.search.detectors import Detector
from invmm_eval.search.sampling import sample
from invmm_eval.search.screening.caption_magnitude import CaptionMagnitude
from invmm_eval.search.screening.denoising_loss import DenoisingLoss
from invmm_eval.search.screening.estimates import time_at
from invmm_eval.search.screening.proximal import Proximal
from invmm_eval.search.screening.step_error import StepError
from invmm_eval.search.target import Target
from invmm_eval.similarity import Similarity

ROWS = 256  # maximum batch size of a network call


def loss(backbone: Backbone, images: Tensor, *, share: float, draws: int = 16, seed: int = 0) -> Tensor:
    """The negative training loss ``|noise_hat(alpha_t x_0 + sigma_t n, t) - n|^2`` at one time.

    That is the denoising loss in units of the noise. It is averaged over dimensions, and over ``draws`` noises that are
    the same for all images.
    """
    alpha_t, sigma_t = backbone.schedule(time_at(backbone.schedule, share))
    return (alpha_t / sigma_t) ** 2 * _scores(DenoisingLoss(share, draws), backbone, images, seed=seed)


def secmi(backbone: Backbone, images: Tensor, *, steps: int = 100, to: int = 10) -> Tensor:
    """The negative step error."""
    return _scores(StepError(steps, to), backbone, images)


def pia(backbone: Backbone, images: Tensor, *, share: float = 0.2) -> Tensor:
    """The negative proximal error."""
    return _scores(Proximal(share), backbone, images)


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


def caption_magnitude(
    backbone: Backbone, captions: Sequence[str], *, guidance: float, steps: int, draws: int = 4, seed: int = 0
) -> Tensor:
    """How far each caption moves the noise estimate. It takes no image."""
    blank = torch.zeros(len(captions), *backbone.image_shape)
    return _scores(CaptionMagnitude(guidance, steps, draws), backbone, blank, captions, seed=seed)


def _scores(
    detector: Detector, backbone: Backbone, images: Tensor, captions: Sequence[str] | None = None, *, seed: int = 0
) -> Tensor:
    pixels = (images * 255).round().to("cpu", torch.uint8)
    texts: Sequence[str | None] = captions or [None] * len(images)
    targets = [Target(image, caption=text) for image, text in zip(pixels, texts, strict=True)]
    return detector(backbone, _encoded(backbone, images), targets, seed=seed, micro_batch=ROWS)


@torch.no_grad()
def _encoded(backbone: Backbone, images: Tensor) -> Tensor:
    return backbone.encode(images.to(backbone.device))
