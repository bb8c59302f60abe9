"""The step error: what the model was trained on, it carries to noise and back with less error.

Duan et al. 2023, "Are Diffusion Models Vulnerable to Membership Inference Attacks?", equation 9 (SecMI, statistic).
From the image DDIM runs backwards, deterministically, to a time t; one step on and one step back again, and the squared
distance between both states at t is the error.
"""

from itertools import pairwise

import torch
from torch import Tensor

from benchmarks.baselines.counting import ddim
from invmm_eval.models.backbone import Backbone


def score(backbone: Backbone, images: Tensor, *, steps: int = 100, to: int = 10) -> Tensor:
    """The negative error of the step from ``to`` to ``to + 1``, averaged over dimensions.

    Args:
        backbone: The model.
        images: Float32 ``(n, C, H, W)`` in [0, 1].
        steps: Steps from clean to noisiest; the paper's are 100 of 10 training times each.
        to: How many of them lead to t.
    """
    with torch.no_grad():
        x = backbone.encode(images.to(backbone.device))
    times = backbone.schedule.grid(steps).flip(0)[1:]
    for t, s in pairwise(times[:to]):
        x = ddim(backbone, x, t, s)
    here, beyond = times[to - 1], times[to]
    back = ddim(backbone, ddim(backbone, x, here, beyond), beyond, here)
    return -(back - x).square().flatten(1).mean(dim=1)
