"""Which way round an image is searched for, where its mirror image counts as a copy too."""

import torch
from torch import Tensor

from invmm_eval.models.backbone import Backbone
from invmm_eval.search.screening.denoising_loss import DenoisingLoss
from invmm_eval.search.target import Target
from invmm_eval.similarity import Similarity
from invmm_eval.similarity.near import NearCopies


@torch.no_grad()
def encoded(backbone: Backbone, similarity: Similarity, target: Target, pixels: Tensor, seed: int) -> Tensor:
    """What a search moves the noise towards: x_0 of the image, or of its mirror image, where that counts as a copy and
    the model restores it with less error (:class:`~invmm_eval.search.screening.denoising_loss.DenoisingLoss`).

    Args:
        backbone: The model.
        similarity: Decides whether mirror images count.
        target: The image.
        pixels: Its pixels in [0, 1], ``(1, C, H, W)``.
        seed: The seed of the run.

    Returns:
        In the shape of one encoded image, ``(1, ...)``.
    """
    x_0 = backbone.encode(pixels)
    if not (isinstance(similarity, NearCopies) and similarity.flip):
        return x_0
    both = torch.cat([x_0, backbone.encode(pixels.flip(-1))])
    detector = DenoisingLoss()
    scores = detector(backbone, both, [target, target], seed=seed, micro_batch=detector.rows)
    return both[scores.argmax()][None]
