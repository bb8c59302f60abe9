"""How much the caption moves the noise estimate: what was memorized with its caption, the caption decides.

Wen et al. 2024, "Detecting, Explaining, and Mitigating Memorization in Diffusion Models", equation 3: along plain
sampling with the caption, ``|noise_hat(x_t, t, caption) - noise_hat(x_t, t, nothing)|`` in the 2-norm, averaged over
the steps and over several noises. It takes no image, only its caption.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from invmm_eval.models.backbone import Backbone
from invmm_eval.models.condition import join


@torch.no_grad()
def score(
    backbone: Backbone, captions: Sequence[str], *, guidance: float, steps: int, draws: int = 4, seed: int = 0
) -> Tensor:
    """The magnitude for each caption.

    Args:
        backbone: A text-guided model whose prompt is the caption.
        captions: One a picture.
        guidance: Scale of classifier-free guidance while sampling.
        steps: Of the sampler.
        draws: Noises, the same for all captions.
        seed: Of the noises.
    """
    channels, height, width = backbone.image_shape
    shape = backbone.encode(torch.zeros(1, channels, height, width, device=backbone.device)).shape[1:]
    noise = torch.randn(draws, *shape, generator=torch.Generator().manual_seed(seed)).to(backbone.device)
    return torch.stack([_magnitude(backbone, caption, noise, guidance, steps) for caption in captions])


def _magnitude(backbone: Backbone, caption: str, noise: Tensor, guidance: float, steps: int) -> Tensor:
    condition, n = backbone.condition(caption), len(noise)
    told = condition.rsample(n, torch.Generator(backbone.device).manual_seed(0))
    both = join([told, condition.null(n)])
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
