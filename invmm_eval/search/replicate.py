"""Draw new images from what a search found."""

import torch
from torch import Tensor

from invmm_eval.errors import InvMMError
from invmm_eval.models.backbone import Backbone
from invmm_eval.noise import NoiseFamily
from invmm_eval.recipe import Recipe
from invmm_eval.search.parameters import restore
from invmm_eval.search.result import Result
from invmm_eval.search.sampling import sample
from invmm_eval.search.target import generator


def replicate(
    backbone: Backbone,
    result: Result,
    noise: NoiseFamily,
    n: int,
    *,
    recipe: Recipe | None = None,
    seed: int = 0,
    guidance: float | None = None,
) -> Tensor:
    """Draw new images from what a search found.

    Args:
        backbone: The model that was searched.
        result: A result that did not fail, computed now or loaded.
        noise: The family that its q is from.
        n: Number of images.
        recipe: Gives the sampler and its steps; None takes the backbone's published one.
        seed: Seed of the random numbers.
        guidance: Guidance scale; None takes the best one of the last check.

    Returns:
        Images ``(n, C, H, W)``, float32 in [0, 1].

    Raises:
        InvMMError: The search failed, or its parameters do not belong to this family and model.
    """
    if result.check is None:
        raise InvMMError(f"There is nothing to sample from: the search of {result.name or 'this image'} failed.")
    recipe = recipe or backbone.recipe
    channels, height, width = backbone.image_shape
    like = backbone.encode(torch.zeros(1, channels, height, width, device=backbone.device))[0]
    q = noise(like)
    condition = backbone.condition(result.caption)
    restore(q.parameters(), result.noise, "noise")
    restore(condition.parameters(), result.condition, "condition")
    scale = result.check.best_scale if guidance is None else guidance
    with torch.no_grad():
        return sample(
            backbone,
            q.rsample(n, generator(seed, result.digest, "replicate")),
            condition.rsample(n, generator(seed, result.digest, "replicate condition", backbone.device)),
            condition.null(n),
            torch.full((n,), scale),
            steps=recipe.sampler_steps,
            micro_batch=recipe.draws,
            sampler=recipe.sampler,
            clip=recipe.clip == "model",
        )
