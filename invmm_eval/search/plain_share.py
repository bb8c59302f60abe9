"""The estimator of the share of copies among plain samples, by importance sampling."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from invmm_eval.search.estimators import Found, Shifted
from invmm_eval.search.status import MEMORIZED
from invmm_eval.statistics.importance import plain_share, relative_error

PARTS = (0.2, 0.3, 0.4, 0.5)
"""The nats of the proposals that are drawn from, as parts of ``-ln p``.

p is the estimate so far, or what is memorized where the estimate is below it: if the image is memorized after all,
its copies are there.
"""
DRAWS = 5
"""Samples of a round from each of them."""
ROUNDS = 24
"""The most rounds.

They end where the estimate is :data:`PRECISE`; after the first, where it is :data:`FAR` below :data:`NEGLIGIBLE`; and
after :data:`ENOUGH`, where it is that far below what is memorized.
"""
ENOUGH = 4
"""Rounds after which the standard error is trusted: of fewer samples all copies may be such as weigh little."""
NEGLIGIBLE = 1e-6 * MEMORIZED
"""A share that more samples would not raise to what is memorized."""
FAR = 5
"""Standard errors. Few copies show too small a one."""
PRECISE = 0.2
"""The relative standard error of the estimate that is precise enough."""


class PlainShare:
    """Samples of a few of the image's :class:`~invmm_eval.search.proposals.Proposals`.

    All samples count that the search drew from shifted plain noise, and plain samples of the model where there are
    some (see :mod:`invmm_eval.statistics.importance`). q is left as it was.
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
        "relative_error": "standard error of the share over the share, by the samples; null without any copy",
    }

    async def __call__(self, found: Found) -> Mapping[str, Any] | None:
        """None without any sample of plain or shifted plain noise."""
        if found.check and found.proposals and found.shifted():
            for number in range(ROUNDS):
                drawn = _drawn(found)
                rate, error = plain_share(*drawn).rate, relative_error(*drawn)
                least = MEMORIZED if number >= ENOUGH else NEGLIGIBLE
                is_rare = number and rate * (1 + FAR * error) < least
                if not rate or error <= PRECISE or is_rare:
                    break
                nats = max(1, -math.log(max(rate, MEMORIZED)))
                await found.sample(DRAWS, *(found.proposals.at(part * nats) for part in PARTS))
        samples = _samples(found)
        if not samples:
            return None
        known = (len(found.plain.noise), found.plain.drawn) if found.plain else (0, 0)
        drawn = _drawn(found)
        share, error = plain_share(*drawn, known), relative_error(*drawn)
        return {
            "share": share.rate,
            "low": share.low,
            "high": share.high,
            "copies": sum(len(one.noise) for one in samples),
            "samples": sum(one.drawn for one in samples),
            "plain_copies": known[0],
            "plain_samples": known[1],
            "plain_guidance": found.guidance,
            "relative_error": error if math.isfinite(error) else None,
        }


def _samples(found: Found) -> list[Shifted]:
    """All samples of plain and shifted plain noise."""
    return [*([found.plain] if found.plain else []), *found.shifted()]


def _drawn(found: Found) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """``ln r_j(n)``, one row for each copy and one column for each proposal, and the number of samples of each."""
    samples = _samples(found)
    noise = torch.cat([one.noise for one in samples])
    if found.proposals:
        ratios: NDArray[np.float64] = found.proposals.log_ratios(noise, [one.proposal for one in samples]).numpy()
    else:
        ratios = np.zeros((len(noise), len(samples)))
    return ratios, np.array([one.drawn for one in samples])
