"""Plain samples of a model, as many as one likes, and what they are similar to."""

from collections.abc import Iterator

import torch
from torch import Tensor

from invmm_eval.models.backbone import Backbone
from invmm_eval.search.sampling import sample
from invmm_eval.similarity import Similarity

ROWS = 256  # maximum batch size of a network call


def similarities(
    backbone: Backbone, images: Tensor, similarity: Similarity, *, samples: int, steps: int, sampler: str, seed: int = 0
) -> Tensor:
    """The similarity of each plain sample to each image, ``(samples, n)``; images are uint8 ``(n, C, H, W)``.

    Its maximum over samples is the score of Carlini et al. 2023, "Extracting Training Data from Diffusion Models",
    section 5.1: draw, compare, count.
    """
    features = similarity.embed(images.to(backbone.device).float() / 255)
    batches = _drawn(backbone, images[:1], samples, steps, sampler, seed)
    return torch.cat([similarity.compare(similarity.embed(drawn), features).cpu() for drawn in batches])


def _drawn(backbone: Backbone, image: Tensor, samples: int, steps: int, sampler: str, seed: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = backbone.encode(image.to(backbone.device).float() / 255).shape[1:]
    for start in range(0, samples, ROWS):
        n = min(ROWS, samples - start)
        noise = torch.randn(n, *shape, generator=generator).to(backbone.device)
        condition, ones = backbone.condition(), torch.ones(n)
        context = condition.rsample(n, torch.Generator(backbone.device).manual_seed(seed))
        yield sample(backbone, noise, context, condition.null(n), ones, steps=steps, micro_batch=ROWS, sampler=sampler)
