"""Checks that a detector keeps the promises of :class:`~invmm_eval.plugin.Detector`."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from invmm_eval.errors import InvMMError
from invmm_eval.models.backbone import Backbone
from invmm_eval.reference import pictures
from invmm_eval.search.detectors import Detector
from invmm_eval.search.rows import Counted
from invmm_eval.search.target import Target
from invmm_eval.testing.promises import BrokenPromise, checked, near, promise

IMAGES = 4
MICRO_BATCH = 3


def check_detector(detector: Detector, backbone: Backbone, targets: Sequence[Target] = ()) -> None:
    """Score a few images of a small model.

    Args:
        detector: The detector.
        backbone: A model that it can score images for.
        targets: At least two images of the model's size, with captions that the model takes; pictures of the reference
            set with the caption "a picture" by default.

    Raises:
        BrokenPromise: Which promise is broken, and how to fix it, in one sentence.
    """
    detector = checked(detector, Detector, "The detector")
    promise(
        type(detector.rows) is int and detector.rows >= 0,
        f"The detector's rows are {detector.rows!r}; give the network rows per image as a whole number.",
    )
    targets = targets or _targets(backbone.image_shape)
    images = torch.stack([target.image for target in targets]).float() / 255
    x_0 = backbone.encode(images.to(backbone.device))
    before = x_0.clone()
    counted = Counted(backbone)

    def score(rows: slice = slice(None), micro_batch: int = MICRO_BATCH) -> Tensor:
        try:
            return detector(cast("Backbone", counted), x_0[rows], targets[rows], seed=0, micro_batch=micro_batch)
        except InvMMError as error:
            raise BrokenPromise(
                f"The detector or the backbone refuses an image ({str(error).rstrip('.')}); give check_detector "
                "targets= with captions that both take."
            ) from error

    scores = score()
    _require_scores(scores, len(targets))
    promise(
        counted.rows == detector.rows * len(targets),
        f"The detector states {detector.rows} network rows per image, but uses {counted.rows / len(targets):g}; "
        "correct its rows.",
    )
    promise(
        counted.largest <= MICRO_BATCH,
        f"The detector calls the network with {counted.largest} rows where micro_batch is {MICRO_BATCH}; split larger "
        "batches.",
    )
    promise(torch.equal(x_0, before), "The detector changes x_0 in place; compute on a copy.")
    promise(
        near(score(), scores),
        "The detector returns other scores when it is called again; draw random numbers from the seed alone.",
    )
    alone = torch.cat([score(slice(row, row + 1)) for row in range(len(targets))])
    promise(
        near(alone, scores) and near(score(micro_batch=1), scores),
        "The detector scores an image otherwise in another batch; use no statistics of the batch, and seed the random "
        "numbers of each image by invmm_eval.plugin.generator.",
    )


def _require_scores(scores: Any, n: int) -> None:
    promise(isinstance(scores, Tensor), f"The detector returns a {type(scores).__name__}; return a tensor.")
    promise(
        scores.shape == (n,),
        f"The detector's scores have the shape {tuple(scores.shape)} for {n} images; return ({n},).",
    )
    promise(
        scores.is_floating_point() and bool(scores.isfinite().all()),
        "The detector's scores are not all finite numbers; compute in float32 where half precision overflows.",
    )
    promise(not scores.requires_grad, "The detector's scores require a gradient; compute them under torch.no_grad.")


def _targets(image_shape: tuple[int, int, int]) -> list[Target]:
    channels, height, width = image_shape
    scaled = [p.image.convert("RGB" if channels == 3 else "L").resize((width, height)) for p in pictures()[:IMAGES]]
    arrays = [np.asarray(image).reshape(height, width, channels) for image in scaled]
    return [Target(torch.from_numpy(array.copy()).permute(2, 0, 1), caption="a picture") for array in arrays]
