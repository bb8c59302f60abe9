"""The estimator of the share of copies among plain samples, by importance sampling along the ray of a search."""

import math
from collections.abc import Mapping
from typing import Any

from invmm_eval.search.estimators import Found
from invmm_eval.search.ray import Ray
from invmm_eval.statistics.importance import SHIFTS, Draw, plain_share
from invmm_eval.statistics.response import HALF, Outcome, Response

LOCATING = 32
"""Samples that find the distance at which half of the samples are copies."""
DRAWS = 32
"""Samples at each of :data:`~invmm_eval.statistics.importance.SHIFTS` times that distance."""


class PlainShare:
    """Samples at several distances along the ray (see :mod:`invmm_eval.statistics.importance`).

    It needs a search along a ray, and a noise family whose q is ``N(d u, I)`` there. q is left as it was.
    """

    name = "plain-share"
    fields: Mapping[str, str] = {
        "share": "share of copies among plain samples, by importance sampling",
        "low": "lower limit of the share, at 97.5 % confidence",
        "nats": "-ln(share), the limit of InvMM over all noise families, in nats in total; null at a share of 0",
        "copies": "number of copies among the samples",
        "samples": "number of samples",
    }

    def __call__(self, found: Found) -> Mapping[str, Any] | None:
        """160 samples; None without a check to start from, a ray, or such a noise family."""
        ray = found.ray
        if found.check is None or ray is None or not _is_shifted_normal(found, ray):
            return None
        reached = ray.nats
        draws: list[Draw] = []
        while len(draws) < LOCATING:
            draws += _drawn(found, ray, found.recipe.check_images)
            half = Response(tuple(Outcome(draw.distance, draw.hit) for draw in draws)).dose(HALF).nats
            ray.move(min(half, reached))
        for shift in SHIFTS:
            ray.move(shift**2 * half)
            draws += _drawn(found, ray, DRAWS)
        ray.move(reached)
        share = plain_share(draws)
        return {
            "share": share.rate,
            "low": share.low,
            "nats": share.nats if share.rate else None,
            "copies": sum(draw.hit for draw in draws),
            "samples": len(draws),
        }


def _is_shifted_normal(found: Found, ray: Ray) -> bool:
    return math.isclose(found.noise.kl().item() * ray.direction.numel(), ray.nats, rel_tol=1e-3)


def _drawn(found: Found, ray: Ray, n: int) -> list[Draw]:
    samples = found.sample(n)
    shift = math.sqrt(2 * ray.nats)
    distances = ray.distances(samples.noise)
    return [Draw(shift, distance, hit) for distance, hit in zip(distances, samples.hits, strict=True)]
