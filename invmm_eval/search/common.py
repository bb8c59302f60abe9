"""What the images of a run have in common: its parts, the mean of the model's images, and plain samples of the model.

The last two are computed when first asked for, from the seed of the run alone, and not counted as rows of any image.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from invmm_eval.device import to_device
from invmm_eval.errors import InvMMError
from invmm_eval.models.backbone import Backbone
from invmm_eval.models.condition import Condition, has_own_prompt, rows
from invmm_eval.noise import NoiseFamily
from invmm_eval.recipe import Recipe
from invmm_eval.search.checks import require_finite
from invmm_eval.search.criteria import Criterion
from invmm_eval.search.estimators import Estimator, Shifted
from invmm_eval.search.memory import MicroBatch
from invmm_eval.search.optimizers import Optimizer
from invmm_eval.search.proposals import Proposal, Proposals, Spread
from invmm_eval.search.ray import Ray
from invmm_eval.search.sampling import chunks, estimated, sample
from invmm_eval.search.target import generator
from invmm_eval.search.times import faintest
from invmm_eval.similarity import Similarity

MEAN_OF = 16
"""The number of estimates that the mean of the model's images is the mean of."""


class Common:
    """The mean and the plain samples of one model.

    Args:
        backbone: The model.
        similarity: Compares plain samples with images.
        recipe: The sampler, its steps, and the number of plain samples.
        seed: The seed of the run.
        micro_batch: Maximum number of rows of a network call.
    """

    def __init__(
        self, backbone: Backbone, similarity: Similarity, recipe: Recipe, seed: int, micro_batch: MicroBatch
    ) -> None:
        self._backbone = backbone
        self._similarity = similarity
        self._recipe = recipe
        self._seed = seed
        self._micro_batch = micro_batch
        self._mean: Tensor | None = None
        self._features: Tensor | None = None
        self._spread: Spread | None = None

    def mean(self, x_0: Tensor, condition: Condition) -> Tensor:
        """The mean of the model's estimates of x_0 from noise alone, without a prompt.

        Args:
            x_0: Any encoded image, for its shape.
            condition: Any of the model's; its null context is taken.

        Returns:
            In the shape of ``x_0``, ``(1, ...)``.

        Raises:
            InvMMError: The estimates are not finite.
        """
        if self._mean is None:
            n = torch.cat([self._noise(x_0, f"mean {index}") for index in range(MEAN_OF)])
            t = faintest(self._backbone.schedule, x_0.numel() ** 0.5)
            _, sigma_t = self._backbone.schedule(t)
            null = condition.null(MEAN_OF)
            while True:
                with self._micro_batch as size:
                    estimates = estimated(self._backbone, sigma_t * n, t, null, size)
                    break
            mean = estimates.mean(dim=0, keepdim=True)
            if not mean.isfinite().all():
                raise InvMMError(
                    "The model's estimates of x_0 are not finite; try float32, or check the model's weights."
                )
            self._mean = mean
        return self._mean

    def plain(
        self,
        scale: float,
        x_0: Tensor,
        condition: Condition,
        features: Tensor,
        threshold: float,
        drawn_more: Callable[[int], object] = lambda _: None,
    ) -> Shifted | None:
        """Compare the plain samples with an image.

        Args:
            scale: The guidance scale that they are to stand for; without a prompt all scales are the same.
            x_0: The encoded image, ``(1, ...)``.
            condition: Its condition.
            features: Its features, ``(1, ...)``.
            threshold: The similarity from which on a sample is a copy.
            drawn_more: Called with the number of samples, whenever some are drawn.

        Returns:
            None where the recipe requests no plain samples, or the image has a prompt of its own at a scale above 0: no
            other image's samples are samples of it then.
        """
        drawn = self._recipe.plain
        if not drawn or (scale and has_own_prompt(condition)):
            return None
        if self._features is None:
            null = condition.null(drawn)
            own = generator(self._seed, "", "plain contexts", self._backbone.device)
            context = condition.rsample(drawn, own) if scale else null
            while True:
                with self._micro_batch as size:
                    parts = []
                    for cut in chunks(drawn, size):
                        noise = torch.cat([self._noise(x_0, f"plain {index}") for index in range(cut.start, cut.stop)])
                        ends = sample(
                            self._backbone,
                            noise,
                            rows(context, cut),
                            rows(null, cut),
                            torch.ones(len(noise)),
                            steps=self._recipe.sampler_steps,
                            micro_batch=len(noise),
                            sampler=self._recipe.sampler,
                            clip=self._recipe.clip == "model",
                            decoded=False,
                        )
                        images = self._backbone.decode(ends)
                        # Of pixels what is out of range is cut, and encoding costs nothing.
                        encoded = self._backbone.encode(images) if ends.shape == images.shape else ends
                        parts.append((self._similarity.embed(images), encoded))
                        drawn_more(len(images))
                    break
            features_drawn, all_encoded = (torch.cat(part) for part in zip(*parts, strict=True))
            # Kept together: where the spread cannot be computed, no later image may go on without it.
            self._spread, self._features = Spread.of(all_encoded), features_drawn
        similar = self._similarity.compare(self._features, features)[:, 0]
        require_finite(self._similarity, similar.tolist())
        hits = (similar >= threshold).nonzero()[:, 0].tolist()
        copies = [self._noise(x_0, f"plain {index}") for index in hits]
        return Shifted(scale, Proposal(torch.zeros_like(x_0[0])), drawn, torch.cat(copies) if copies else x_0[:0])

    def proposals(self, x_0: Tensor, ray: Ray, plain: Shifted | None) -> Proposals:
        """Where noise that gives copies of an image is likely.

        Args:
            x_0: The encoded image, ``(1, ...)``.
            ray: What its search found.
            plain: The plain samples; without any, the proposals lie along the ray.
        """
        spread = self._spread if plain else None
        return Proposals((x_0 - spread.mean)[0] if spread else ray.direction, spread)

    def _noise(self, x_0: Tensor, purpose: str) -> Tensor:
        """A standard normal noise, which is drawn again instead of kept, ``(1, ...)``."""
        return to_device(torch.randn(x_0.shape, generator=generator(self._seed, "", purpose)), x_0.device)


@dataclass(frozen=True)
class Setup:
    """The parts and settings that all searches of a run share.

    Attributes:
        backbone: The model.
        similarity: Compares samples with images.
        family: The noise family of q.
        recipe: The settings.
        threshold: The similarity from which on a sample counts as a replica (beta).
        optimizer: The kind of optimizer of each search.
        criterion: The stopping rule.
        estimators: They run after each search, in this order.
        seed: The seed of the run.
        common: What all images have in common.
    """

    backbone: Backbone
    similarity: Similarity
    family: NoiseFamily
    recipe: Recipe
    threshold: float
    optimizer: type[Optimizer]
    criterion: Criterion
    estimators: Sequence[Estimator]
    seed: int
    common: Common
