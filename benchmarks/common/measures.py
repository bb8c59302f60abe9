"""Measures of how well scores separate images; NaN if there are no images."""

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata, spearmanr
from sklearn.metrics import roc_auc_score, roc_curve

FALSE_POSITIVES = 0.01
KEPT = 0.05


def auc(scores: ArrayLike, labels: ArrayLike) -> float:
    """The chance that a labelled image scores above another, ties counting one half; scores may be infinite."""
    return float(roc_auc_score(labels, rankdata(scores))) if len(np.unique(labels)) == 2 else math.nan


def tpr(scores: ArrayLike, labels: ArrayLike, false_positives: float = FALSE_POSITIVES) -> float:
    """The greatest share of labelled images found at no more than that share of false positives."""
    if len(np.unique(labels)) < 2:
        return math.nan
    wrong, right, _ = roc_curve(labels, rankdata(scores), drop_intermediate=False)
    return float(right[wrong <= false_positives].max())


def recall(scores: ArrayLike, labels: ArrayLike, share: float = KEPT) -> float:
    """The share of labelled images within the first ``share`` of the ranking, or within as many as are labelled."""
    marked = np.asarray(labels, bool)
    if not marked.any():
        return math.nan
    count = max(math.ceil(share * len(marked)), int(marked.sum()))
    first = np.argsort(-rankdata(scores, "max"), kind="stable")[:count]
    return float(marked[first].sum() / marked.sum())


def factor(ratios: ArrayLike) -> float:
    """By what factor ratios are off 1, as a root mean square of logarithms; infinite where one is 0."""
    known = np.asarray(ratios, float)
    with np.errstate(divide="ignore"):
        return math.exp(math.sqrt(mean(np.log(known) ** 2))) if (known > 0).all() else math.inf


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
