"""The stopping rule: does noise drawn from q make the model replicate the image every time?

An image passes a check when, at one guidance scale at least, all K samples reach the similarity threshold beta
(Ma et al. 2025, section 3.3). A single failing sample settles a scale, and a single scale of which all K samples pass
settles the image. So one sample is made at every scale first, then all others of the most promising scale. Where they
pass, the other scales need none; where not, the next one has its turn, if its own first sample passed. All K noises are
fixed beforehand: the verdict is that of drawing everything.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from invmm_eval.models.backbone import Backbone
from invmm_eval.models.condition import Context, join, rows
from invmm_eval.recipe import Recipe
from invmm_eval.search.sampling import sample
from invmm_eval.similarity import Similarity


@dataclass(frozen=True)
class Trial:
    """What one image brings to a check: K noises, K contexts, K null contexts, and its own features ``(1, ...)``."""

    noise: Tensor
    context: Context
    null: Context
    features: Tensor


@dataclass(frozen=True)
class Check:
    """The outcome for one image: per guidance scale, the samples drawn and how alike they are to it.

    Attributes:
        passed: Whether the rule is met.
        similarities: K values by scale, or one where it failed or another scale passed.
        samples: The samples themselves by scale, uint8 ``(m, C, H, W)`` on the CPU.
    """

    passed: bool
    similarities: dict[float, tuple[float, ...]]
    samples: Mapping[float, Tensor]

    @property
    def score(self) -> float:
        """The number that the rule holds against beta: the least similarity at the best scale; a NaN counts as -inf."""
        return self._least(self.best_scale)

    @property
    def best_scale(self) -> float:
        """The guidance scale that gave :attr:`score`: of a passed check one that passed, with all K samples."""
        return max(
            self.similarities, key=lambda scale: (self.passed and len(self.similarities[scale]), self._least(scale))
        )

    def hits(self, threshold: float) -> dict[float, int]:
        """How many samples reach a threshold, by guidance scale."""
        return {scale: sum(value >= threshold for value in values) for scale, values in self.similarities.items()}

    def at(self, scale: float) -> "Check":
        """What was drawn at one scale."""
        return Check(self.passed, {scale: self.similarities[scale]}, {scale: self.samples[scale]})

    def _least(self, scale: float) -> float:
        return min(-math.inf if math.isnan(value) else value for value in self.similarities[scale])


def check(
    backbone: Backbone,
    similarity: Similarity,
    trials: Sequence[Trial],
    recipe: Recipe,
    *,
    threshold: float,
    micro_batch: int,
    complete: bool = False,
) -> list[Check]:
    """Check several images together.

    Args:
        backbone: The model.
        similarity: What compares samples with images.
        trials: One for each image.
        recipe: K, the sampler, its steps and the guidance scales.
        threshold: beta.
        micro_batch: At most so many samples are made together.
        complete: Draw all K samples at all scales, whatever fails.

    Raises:
        InvMMError: The backbone breaks its promise on shapes.
    """
    values: list[dict[float, list[float]]] = [{scale: [] for scale in recipe.guidance} for _ in trials]
    samples: list[dict[float, list[Tensor]]] = [{scale: [] for scale in recipe.guidance} for _ in trials]
    while wanted := [
        (index, scale, slice(len(found[scale]), count))
        for index, found in enumerate(values)
        for scale, count in _wanted(found, threshold, recipe.check_images, complete=complete).items()
    ]:
        counts = [cut.stop - cut.start for _, _, cut in wanted]
        noise = torch.cat([trials[index].noise[cut] for index, _, cut in wanted])
        scales = torch.tensor([scale for _, scale, _ in wanted]).repeat_interleave(torch.tensor(counts))
        images = sample(
            backbone,
            noise,
            join([rows(trials[index].context, cut) for index, _, cut in wanted]),
            join([rows(trials[index].null, cut) for index, _, cut in wanted]),
            scales.to(noise.device),
            steps=recipe.sampler_steps,
            micro_batch=micro_batch,
            sampler=recipe.sampler,
        )
        features = torch.split(similarity.embed(images), counts)
        pixels = torch.split((images * 255).round().to("cpu", torch.uint8), counts)
        for (index, scale, _), feature, pixel in zip(wanted, features, pixels, strict=True):
            values[index][scale].extend(similarity.compare(feature, trials[index].features)[:, 0].tolist())
            samples[index][scale].append(pixel)
    return [
        Check(
            passed=any(_passes(drawn, threshold) and len(drawn) == recipe.check_images for drawn in found.values()),
            similarities={scale: tuple(drawn) for scale, drawn in found.items()},
            samples={scale: torch.cat(parts) for scale, parts in kept.items()},
        )
        for found, kept in zip(values, samples, strict=True)
    ]


def _wanted(found: Mapping[float, list[float]], threshold: float, images: int, *, complete: bool) -> dict[float, int]:
    """How many samples an image is to have next, by scale; nothing where its verdict is known."""
    if not all(found.values()):
        return dict.fromkeys(found, images if complete else 1)
    alive = [scale for scale, drawn in found.items() if _passes(drawn, threshold)]
    best = max(alive, key=lambda scale: (len(found[scale]), min(found[scale])), default=None)
    if best is None or len(found[best]) == images:
        return {}
    return {best: images}


def _passes(drawn: Sequence[float], threshold: float) -> bool:
    return all(value >= threshold for value in drawn)
