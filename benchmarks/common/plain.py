"""The published protocol done plainly, straight from its description: one image at a time, every check complete.

Ma et al. 2025, "An Inversion-based Measure of Memorization for Diffusion Models", section 3. It draws the same
random numbers as the engine, so that verdicts and values must agree.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Generator, Tensor, nn

from invmm_eval.audits.plan import Plan
from invmm_eval.models.backbone import Backbone
from invmm_eval.models.condition import Condition, Context, join, repeat
from invmm_eval.models.schedule import broadcast
from invmm_eval.noise import Noise
from invmm_eval.recipe import Recipe
from invmm_eval.search.optimizers import AdaptiveWeight
from invmm_eval.search.result import Status
from invmm_eval.search.target import Target, generator


@dataclass(frozen=True)
class Outcome:
    """The verdict on an image, KL per dimension, and the steps taken."""

    status: Status
    kl: float
    steps: int


def plain(plan: Plan, target: Target) -> Outcome:
    """Search one image."""
    backbone, recipe, seed = plan.backbone, plan.recipe, plan.seed
    pixels = target.image.to(backbone.device)[None].float() / 255
    x_0, features = backbone.encode(pixels), plan.similarity.embed(pixels)
    q, condition = plan.noise(x_0[0]), backbone.condition(target.caption)
    steps, checks = (generator(seed, target.digest, purpose) for purpose in ("steps", "checks"))
    step_contexts, check_contexts = (
        generator(seed, target.digest, purpose, backbone.device) for purpose in ("step contexts", "check contexts")
    )
    adam = torch.optim.Adam([*q.parameters().values(), *condition.parameters().values()], lr=recipe.learning_rate)
    weight, losses = AdaptiveWeight(recipe), []
    for step in range(1, recipe.max_steps + 1):
        n = q.rsample(recipe.draws, steps)
        t = backbone.schedule.draw(recipe.draws, steps).to(backbone.device)
        context = condition.rsample(recipe.draws, step_contexts)
        alpha_t, sigma_t = (broadcast(level, n) for level in backbone.schedule(t))
        fit = (backbone.predict_x0(alpha_t * x_0 + sigma_t * n, t, context) - x_0).square().mean()
        adam.zero_grad()
        torch.autograd.backward(fit + weight.value * q.kl())
        adam.step()
        losses.append(fit.item())
        if step % recipe.check_every:
            weight.grow()
            continue
        window = losses[-recipe.window :]
        weight.after_check(sum(window) / len(window))
        if replicated(plan, q, condition, features, checks, check_contexts):
            return Outcome(Status.REPLICATED, q.kl().item(), step)
    return Outcome(Status.EXHAUSTED, q.kl().item(), recipe.max_steps)


@torch.no_grad()
def replicated(
    plan: Plan, q: Noise, condition: Condition, features: Tensor, checks: Generator, contexts: Generator
) -> bool:
    """Whether all K samples pass at some scale; all are made, at all scales."""
    recipe, similarity = plan.recipe, plan.similarity
    noise = q.rsample(recipe.check_images, checks)
    context = condition.rsample(1 if recipe.shared_context else recipe.check_images, contexts)
    if recipe.shared_context:
        context = repeat(context, recipe.check_images)
    null = condition.null(recipe.check_images)
    least = [
        similarity.compare(
            similarity.embed(denoised(plan.backbone, noise, context, null, scale, recipe)), features
        ).min()
        for scale in recipe.guidance
    ]
    return max(least).item() >= plan.threshold


def denoised(backbone: Backbone, x_t: Tensor, context: Context, null: Context, scale: float, recipe: Recipe) -> Tensor:
    """Deterministic DDIM, as its paper writes it, with both passes of guidance in one call."""
    both = context if scale == 1 else join([context, null])
    for t, s in pairwise(backbone.schedule.grid(recipe.sampler_steps)):
        rows = x_t if scale == 1 else x_t.repeat(2, 1, 1, 1)
        x_0 = backbone.predict_x0(rows, t.expand(len(rows)), both)
        if scale != 1:
            x_0, unconditional = x_0.chunk(2)
            x_0 = unconditional + scale * (x_0 - unconditional)
        if backbone.clip is not None:
            x_0 = x_0.clamp(-backbone.clip, backbone.clip)
        (alpha_t, sigma_t), (alpha_s, sigma_s) = backbone.schedule(t), backbone.schedule(s)
        x_t = alpha_s * x_0 + sigma_s * (x_t - alpha_t * x_0) / sigma_t
    return backbone.decode(x_t)


def with_gradients(backbone: Backbone) -> Backbone:
    """The same network, its weights with gradients, as where a script does not freeze them."""
    for part in vars(backbone).values():
        if isinstance(part, nn.Module):
            part.requires_grad_(True)
    return backbone
