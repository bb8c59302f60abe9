"""The nearest of many plain samples: what the model memorized, it gives back unasked.

Carlini et al. 2023, "Extracting Training Data from Diffusion Models", section 5.1: draw, compare, and count.
"""

import torch
from torch import Tensor

from benchmarks.baselines.counting import ROWS
from invmm_eval.models.backbone import Backbone
from invmm_eval.search.sampling import sample
from invmm_eval.similarity import Similarity


def similarities(
    backbone: Backbone, images: Tensor, similarity: Similarity, *, samples: int, steps: int, seed: int = 0
) -> Tensor:
    """How alike each of ``samples`` plain samples is to each of ``images``: ``(samples, n)``.

    Args:
        backbone: The model.
        images: Float32 ``(n, C, H, W)`` in [0, 1].
        similarity: What compares.
        samples: How many.
        steps: Of the sampler.
        seed: Of the noises.
    """
    generator = torch.Generator().manual_seed(seed)
    shape = backbone.encode(images[:1].to(backbone.device)).shape[1:]
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


def score(alike: Tensor) -> Tensor:
    """The greatest similarity of any sample, an image: of what :func:`similarities` gave."""
    return alike.amax(dim=0)
