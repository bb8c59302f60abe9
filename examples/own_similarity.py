"""A similarity of one's own, registered from a script: images are compared by their thumbnails.

Each image is averaged down to 8x8 pixels, and the similarity is the centred cosine of these. Where pixel-cosine minds
every pixel's place, this one lets a copy be shifted a little.

    python examples/own_similarity.py

As a package, the same class is named in the entry-point group ``invmm_eval``: see plugins/invmm-score-sde.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, normalize

from invmm_eval import host
from invmm_eval.audits.run import audit
from invmm_eval.plugin import hookimpl
from invmm_eval.plugins.hooks import SimilarityMaker
from invmm_eval.reference import MODEL, pictures


class Thumbnail:
    """The centred cosine of 8x8 thumbnails, in [-1, 1].

    Args:
        device: Where to compute.
    """

    name = "thumbnail"
    threshold = 0.95
    settings: Mapping[str, str | int | float | None] = {"side": 8}

    def __init__(self, *, device: torch.device) -> None:
        self._device = device

    def embed(self, images: Tensor) -> Tensor:
        """Centred thumbnails ``(n, C * 64)`` of length 1."""
        small = adaptive_avg_pool2d(images.to(self._device), 8).flatten(1)
        return normalize(small - small.mean(dim=1, keepdim=True))

    def compare(self, a: Tensor, b: Tensor) -> Tensor:
        """Cosines ``(n, m)``."""
        return a @ b.T


class Plugin:
    """What an entry point would name."""

    @staticmethod
    @hookimpl
    def register_similarities() -> Mapping[str, SimilarityMaker]:
        """One similarity."""
        return {Thumbnail.name: Thumbnail}


def main() -> None:
    """Audit a picture that the reference model was shown 256 times, and one that it never saw."""
    host().register(Plugin(), "thumbnail")
    known = pictures()
    chosen = [known[0], known[-1]]
    results = audit(
        MODEL,
        [picture.image for picture in chosen],
        similarity="thumbnail",
        recipe="demo",
        settings={"max_steps": 50},
    )
    for picture, result in zip(chosen, results, strict=True):
        print(f"{picture.name} ({picture.copies} copies): {result.status}, InvMM {result.invmm:.3f}")


if __name__ == "__main__":
    main()
