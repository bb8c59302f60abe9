"""The stopping rule: does noise drawn from q make the model replicate the image every time?

An image passes a check when, at one guidance scale at least, all K samples reach the similarity threshold beta
(Ma et al. 2025, section 3.3). A single failing sample settles a scale, so samples are drawn one first and then as
many again as there are already, and a scale is dropped as soon as one of its samples fails. All K noises are fixed
beforehand: the verdict is that of drawing everything.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from invmm_eval.backbone import Backbone
from invmm_eval.condition import Context, join, rows
from invmm_eval.recipe import Recipe
from invmm_eval.sampling import sample
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
        similarities: Up to K values by scale, fewer where a failing one settled the scale.
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
        """The guidance scale that gave :attr:`score`."""
        return max(self.similarities, key=self._least)

    def _least(self, scale: float) -> float:
        return min(-math.inf if math.isnan(value) else value for value in self.similarities[scale])


def stages(images: int) -> list[int]:
    """How many samples have been drawn after each stage: 0, 1, 2, 4, ... up to ``images``."""
    counts = [0, 1]
    while counts[-1] < images:
        counts.append(min(2 * counts[-1], images))
    return counts


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
        recipe: K, the sampler's steps and the guidance scales.
        threshold: beta.
        micro_batch: At most so many samples are made together.
        complete: Draw all K samples at all scales, whatever fails.

    Raises:
        InvMMError: The backbone breaks its promise on shapes.
    """
    drawn: dict[tuple[int, float], tuple[list[float], list[Tensor]]] = {
        (index, scale): ([], []) for index in range(len(trials)) for scale in recipe.guidance
    }
    alive = list(drawn)
    for start, stop in pairwise([0, recipe.check_images] if complete else stages(recipe.check_images)):
        if not alive:
            break
        cut = slice(start, stop)
        noise = torch.cat([trials[index].noise[cut] for index, _ in alive])
        images = sample(
            backbone,
            noise,
            join([rows(trials[index].context, cut) for index, _ in alive]),
            join([rows(trials[index].null, cut) for index, _ in alive]),
            torch.tensor([scale for _, scale in alive], device=noise.device).repeat_interleave(stop - start),
            steps=recipe.sampler_steps,
            micro_batch=micro_batch,
        )
        features = torch.split(similarity.embed(images), stop - start)
        pixels = torch.split((images * 255).round().to("cpu", torch.uint8), stop - start)
        for key, feature, pixel in zip(alive, features, pixels, strict=True):
            values, kept = drawn[key]
            values.extend(similarity.compare(feature, trials[key[0]].features)[:, 0].tolist())
            kept.append(pixel)
        alive = [key for key in alive if all(value >= threshold for value in drawn[key][0])]
    passed = {index for index, _ in alive}
    return [
        Check(
            passed=index in passed,
            similarities={scale: tuple(drawn[index, scale][0]) for scale in recipe.guidance},
            samples={scale: torch.cat(drawn[index, scale][1]) for scale in recipe.guidance},
        )
        for index in range(len(trials))
    ]
