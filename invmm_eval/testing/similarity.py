"""Checks that a similarity keeps the promises of :class:`~invmm_eval.plugin.Similarity`."""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from invmm_eval.reference import pictures
from invmm_eval.similarity import Similarity
from invmm_eval.testing.promises import checked, near, promise, require_rows, require_tensor, seeded

PICTURES = 5
SIZES = ((32, 32), (48, 24))


def check_similarity(similarity: Similarity) -> None:
    """Compare pictures of the reference set: square, oblong and grey ones.

    Raises:
        BrokenPromise: Which promise is broken, and how to fix it, in one sentence.
    """
    similarity = checked(similarity, Similarity, "The similarity")
    promise(
        isinstance(similarity.threshold, float | int) and math.isfinite(similarity.threshold),
        f"The similarity's threshold is {similarity.threshold!r}; make it a finite number.",
    )
    square = _pictures()
    for size in SIZES:
        images = interpolate(square, size, mode="bilinear", antialias=True)
        _require_values(similarity, images, f"colour images of {size[0]}x{size[1]}")
    _require_values(similarity, square.mean(dim=1, keepdim=True), "grey images")
    _require_meaning(similarity, square)


def _pictures() -> Tensor:
    """Different pictures, float32 ``(n, 3, 32, 32)`` in [0, 1]."""
    arrays = [np.asarray(picture.image) for picture in pictures()[:PICTURES]]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 255


def _require_values(similarity: Similarity, images: Tensor, kind: str) -> None:
    n = len(images)
    features = similarity.embed(images)
    require_tensor(features, f"The output of embed for {kind}", device=features.device)
    require_rows(similarity.embed, f"embed of {kind}", images)
    values = similarity.compare(features, features)
    require_tensor(values, f"The output of compare for {kind}", shape=(n, n), device=features.device)
    require_tensor(
        similarity.compare(features[:2], features),
        f"The output of compare for 2 and {n} {kind}",
        shape=(2, n),
        device=features.device,
    )
    require_rows(lambda rows: similarity.compare(rows, features), f"compare of {kind}", features)
    promise(
        near(values.T, values),
        f"compare of {kind} depends on which image comes first; make it symmetric.",
    )
    own = values.diagonal()
    promise(
        bool((values <= own[:, None] + 1e-3).all()),
        f"compare of {kind} finds an image more like another one than like itself; higher must mean more alike.",
    )
    promise(
        bool((own >= similarity.threshold).all()),
        f"An image compared with itself reaches {own.min():.3f} ({kind}), below the threshold {similarity.threshold}; "
        "choose a threshold that identical images reach.",
    )


def _require_meaning(similarity: Similarity, images: Tensor) -> None:
    features = similarity.embed(images)
    others = similarity.compare(features, features)[~torch.eye(len(images), dtype=torch.bool)]
    promise(
        bool((others < similarity.threshold).any()),
        f"All different pictures reach the threshold {similarity.threshold}; choose one that only copies reach.",
    )
    noise = 0.02 * torch.randn(images.shape, generator=seeded())
    copies = similarity.compare(similarity.embed((images + noise).clamp(0, 1)), features).diagonal()
    promise(
        bool(copies.mean() > others.mean()),
        f"Pictures with a little noise reach {copies.mean():.3f} on average, and different ones {others.mean():.3f}; "
        "higher must mean more alike.",
    )
