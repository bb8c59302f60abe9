"""A custom similarity, registered from a script: images are compared by their thumbnails.

Each image is averaged down to 8x8 pixels, and the similarity is the centred cosine of the thumbnails. Unlike
pixel-cosine, it tolerates a copy that is shifted by a few pixels.

    python examples/own_similarity.py

A package registers the same class by an entry point of the group ``invmm_eval``: see plugins/invmm-dino.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, normalize

from invmm_eval import audit, host
from invmm_eval.plugin import SimilarityMaker, hookimpl
from invmm_eval.reference import MODEL, pictures


class Thumbnail:
    """The centred cosine of 8x8 thumbnails, in [-1, 1].

    Args:
        device: Device of the computation.
    """

    name = "thumbnail"
    threshold = 0.95
    settings: Mapping[str, str | int | float | None] = {"side": 8}

    def __init__(self, *, device: torch.device) -> None:
        self._device = device

    def embed(self, images: Tensor) -> Tensor:
        """Compute centred thumbnails ``(n, C * 64)`` of norm 1."""
        small = adaptive_avg_pool2d(images.to(self._device), 8).flatten(1)
        return normalize(small - small.mean(dim=1, keepdim=True))

    def compare(self, a: Tensor, b: Tensor) -> Tensor:
        """Compute cosines ``(n, m)``."""
        return a @ b.T


class Plugin:
    """The plugin, as an entry point would name it."""

    @staticmethod
    @hookimpl
    def register_similarities() -> Mapping[str, SimilarityMaker]:
        """Register one similarity."""
        return {Thumbnail.name: Thumbnail}


def main() -> None:
    """Audit a picture of which the training set of the reference model held 256 copies, and a held-out one."""
    host().register(Plugin(), "thumbnail")
    known = pictures()
    chosen = [known[0], known[-1]]
    results = audit(
        MODEL,
        [picture.image for picture in chosen],
        similarity="thumbnail",
        recipe="demo",
        settings={"max_steps": 10, "check_every": 10},
    )
    for picture, result in zip(chosen, results, strict=True):
        print(f"{picture.name} ({picture.copies} copies): {result.status}, InvMM {result.invmm:.3f}")


if __name__ == "__main__":
    main()
