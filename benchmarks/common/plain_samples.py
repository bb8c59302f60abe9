"""Plain samples of a model, as many as one likes, and what they are similar to."""

import torch
from torch import Tensor

from invmm_eval.models.backbone import Backbone
from invmm_eval.search.sampling import chunks, sample
from invmm_eval.similarity import Similarity

ROWS = 256  # maximum batch size of a network call


def similarities(
    backbone: Backbone, images: Tensor, similarity: Similarity, *, samples: int, steps: int, sampler: str, seed: int = 0
) -> Tensor:
    """The similarity of each plain sample to each image, ``(samples, n)``; images are uint8 ``(n, C, H, W)``.

    Its maximum over samples is the score of Carlini et al. 2023, "Extracting Training Data from Diffusion Models",
    section 5.1: draw, compare, count.
    """
    pixels = images.to(backbone.device).float() / 255
    features, shape = similarity.embed(pixels), backbone.encode(pixels[:1]).shape[1:]
    generator, condition = torch.Generator().manual_seed(seed), backbone.condition()
    alike = []
    for n in (part.stop - part.start for part in chunks(samples, ROWS)):
        noise = torch.randn(n, *shape, generator=generator).to(backbone.device)
        context = condition.rsample(n, torch.Generator(backbone.device).manual_seed(seed))
        null, ones = condition.null(n), torch.ones(n)
        drawn = sample(backbone, noise, context, null, ones, steps=steps, micro_batch=ROWS, sampler=sampler)
        alike.append(similarity.compare(similarity.embed(drawn), features).cpu())
    return torch.cat(alike)
