"""Measures of how well scores separate images; NaN if there are no images."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata, spearmanr
from sklearn.metrics import roc_auc_score, roc_curve

FALSE_POSITIVES = 0.01


def auc(scores: ArrayLike, labels: ArrayLike) -> float:
    """The chance that a labelled image scores above another, ties counting one half; scores may be infinite."""
    return float(roc_auc_score(labels, rankdata(scores))) if len(np.unique(labels)) == 2 else math.nan


def tpr(scores: ArrayLike, labels: ArrayLike, false_positives: float = FALSE_POSITIVES) -> float:
    """The greatest share of labelled images found at no more than that share of false positives."""
    if len(np.unique(labels)) < 2:
        return math.nan
    wrong, right, _ = roc_curve(labels, rankdata(scores), drop_intermediate=False)
    return float(right[wrong <= false_positives].max())


def rank_correlation(a: ArrayLike, b: ArrayLike) -> float:
    """Spearman's; values may be infinite."""
    ranks = rankdata(a), rankdata(b)
    return float(spearmanr(*ranks).statistic) if all(len(np.unique(one)) > 1 for one in ranks) else math.nan


def quantiles(values: ArrayLike, *shares: float) -> list[float]:
    """The values below which those shares lie."""
    known = np.asarray(values, float)
    return np.quantile(known, shares).tolist() if known.size else [math.nan] * len(shares)


def middle(values: ArrayLike) -> float:
    """The median of values that may be infinite."""
    known = np.asarray(values, float)
    return float(np.median(known)) if known.size else math.nan


def mean(values: ArrayLike) -> float:
    """The mean."""
    known = np.asarray(values, float)
    return float(known.mean()) if known.size else math.nan


def spread(values: ArrayLike) -> float:
    """The interquartile range of finite values."""
    low, high = quantiles(values, 0.25, 0.75)
    return high - low


def resampled(scores: Sequence[ArrayLike], labels: Sequence[ArrayLike], draws: int = 1000) -> tuple[float, float]:
    """The 95 % bootstrap interval of the AUC averaged over groups, images drawn again within labels and groups."""
    random = np.random.default_rng(0)
    areas = np.mean([_again(s, y, draws, random) for s, y in zip(scores, labels, strict=True)], axis=0)
    low, high = quantiles(areas, 0.025, 0.975)
    return low, high


def _again(scores: ArrayLike, labels: ArrayLike, draws: int, random: np.random.Generator) -> NDArray[np.float64]:
    """The AUC of one group for each draw: pairs are won as they are, images are there more or less often."""
    values, marked = rankdata(scores), np.asarray(labels, bool)
    ours, others = values[marked], values[~marked]
    won = (ours[:, None] > others) + (ours[:, None] == others) / 2
    times = [random.multinomial(len(one), np.full(len(one), 1 / len(one)), draws) for one in (ours, others)]
    areas: NDArray[np.float64] = ((times[0] @ won) * times[1]).sum(axis=1) / won.size
    return areas
