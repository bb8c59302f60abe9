"""Proximal initialization: what the model was trained on, it denoises consistently along the image's own noise.

Kong et al. 2024, "An Efficient Membership Inference Attack for the Diffusion Model by Proximal Initialization",
equation 9 (PIA): with ``n_0`` the noise that the model sees in the clean image, the error is
``|noise_hat(alpha_t x_0 + sigma_t n_0, t) - n_0|`` in the 4-norm.
"""

import torch
from torch import Tensor

from benchmarks.baselines.counting import estimate, time_at
from invmm_eval.models.backbone import Backbone


def score(backbone: Backbone, images: Tensor, *, share: float) -> Tensor:
    """The negative error: the 4-norm over dimensions.

    Args:
        backbone: The model.
        images: Float32 ``(n, C, H, W)`` in [0, 1].
        share: The time, in (0, 1] of the way to the noisiest; the paper's is a fifth.
    """
    with torch.no_grad():
        x_0 = backbone.encode(images.to(backbone.device))
    _, n_0 = estimate(backbone, x_0, backbone.schedule.grid(1000)[-2])
    t = time_at(backbone.schedule, share)
    alpha_t, sigma_t = backbone.schedule(t)
    _, n_t = estimate(backbone, alpha_t * x_0 + sigma_t * n_0, t)
    error: Tensor = torch.linalg.vector_norm((n_t - n_0).flatten(1), ord=4, dim=1)
    return -error
