"""The estimator of the share of copies among plain samples, by importance sampling along the ray of a search."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from invmm_eval.search.estimators import Found, Shifted
from invmm_eval.search.status import MEMORIZED
from invmm_eval.statistics.importance import SHIFTS, plain_share, relative_error
from invmm_eval.statistics.response import HALF, Response

DRAWS = 14
"""Samples of a round at each of :data:`~invmm_eval.statistics.importance.SHIFTS` times the distance of half."""
ROUNDS = 6
"""The most rounds. They end where the estimate is :data:`PRECISE`, or two standard errors below what is memorized."""
PRECISE = 0.2
"""The relative standard error of the estimate that is precise enough."""
LOCATING = 32
"""Samples along the ray from which the distance of half is known well enough."""


class PlainShare:
    """Samples at several distances along the ray (see :mod:`invmm_eval.statistics.importance`).

    All samples count that the search drew from shifted plain noise, and plain samples of the model where there are
    some. q is left as it was.
    """

    name = "plain-share"
    fields: Mapping[str, str] = {
        "share": "share of copies among plain samples, by importance sampling",
        "low": "lower limit of the share, at 97.5 % confidence",
        "high": "upper limit of the share, at 97.5 % confidence, from plain samples alone; 1 without any",
        "copies": "number of copies among the samples",
        "samples": "number of samples",
        "plain_copies": "number of copies among the plain samples",
        "plain_samples": "number of plain samples",
        "plain_guidance": "guidance scale that the share is for; 0 without a prompt",
        "aim": "cosine of two independent estimates of the direction; null where there are none",
    }

    def __call__(self, found: Found) -> Mapping[str, Any] | None:
        """None without any sample of plain or shifted plain noise."""
        if found.check and found.ray and found.shifted():
            reached = found.ray.nats
            while len(found.outcomes) < LOCATING:
                if found.outcomes:
                    found.ray.move(_half(found))
                found.sample(found.recipe.check_images)
            half = _half(found)
            for number in range(ROUNDS):
                drawn = _drawn(found)
                error = relative_error(*drawn)
                rare = number and plain_share(*drawn).rate * (1 + 2 * error) < MEMORIZED
                if error <= PRECISE or rare:
                    break
                for shift in SHIFTS:
                    found.ray.move(shift**2 * half)
                    found.sample(DRAWS)
            found.ray.move(reached)
        samples = _samples(found)
        if not samples:
            return None
        known = (len(found.plain.noise), found.plain.drawn) if found.plain else (0, 0)
        share = plain_share(*_drawn(found), known)
        return {
            "share": share.rate,
            "low": share.low,
            "high": share.high,
            "copies": sum(len(one.noise) for one in samples),
            "samples": sum(one.drawn for one in samples),
            "plain_copies": known[0],
            "plain_samples": known[1],
            "plain_guidance": found.guidance,
            "aim": found.aim,
        }


def _samples(found: Found) -> list[Shifted]:
    """All samples of plain and shifted plain noise."""
    return [*([found.plain] if found.plain else []), *found.shifted()]


def _half(found: Found) -> float:
    """The dose of half, in nats; at most the largest that was drawn at, beyond which the curve is a guess."""
    largest = max(one.mean.square().sum().item() / 2 for one in found.shifted())
    return min(Response(tuple(found.outcomes)).dose(HALF).nats, largest)


def _drawn(found: Found) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """``ln r_j(n)``, one row for each copy and one column for each mean, and the number of samples of each mean."""
    samples = _samples(found)
    means = torch.stack([one.mean.flatten() for one in samples]).double()
    noise = torch.cat([one.noise.flatten(1) for one in samples]).double()
    ratios: NDArray[np.float64] = (noise @ means.T - means.square().sum(dim=1) / 2).cpu().numpy()
    return ratios, np.array([one.drawn for one in samples])
