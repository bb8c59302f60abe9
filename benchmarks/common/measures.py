"""Measures of how well scores separate images; NaN where there is nothing to separate. Scores may be infinite."""

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score, roc_curve

FALSE_POSITIVES = 0.01
KEPT = 0.05


def auc(scores: ArrayLike, labels: ArrayLike) -> float:
    """The chance that a labelled image scores above another, ties counting one half."""
    return float(roc_auc_score(labels, rankdata(scores))) if len(np.unique(labels)) == 2 else math.nan


def tpr(scores: ArrayLike, labels: ArrayLike) -> float:
    """The greatest share of labelled images found at no more than :data:`FALSE_POSITIVES`."""
    if len(np.unique(labels)) < 2:
        return math.nan
    wrong, right, _ = roc_curve(labels, rankdata(scores), drop_intermediate=False)
    return float(right[wrong <= FALSE_POSITIVES].max())


def recall(scores: ArrayLike, labels: ArrayLike) -> float:
    """The share of labelled images within the first :data:`KEPT` of the ranking, or within as many as are labelled."""
    marked = np.asarray(labels, bool)
    count = max(math.ceil(KEPT * len(marked)), int(marked.sum()))
    first = np.argsort(-rankdata(scores, "max"), kind="stable")[:count]
    return float(marked[first].sum() / marked.sum())


def factor(ratios: ArrayLike) -> float:
    """By what factor ratios are off 1, as a root mean square of logarithms; infinite where one is 0."""
    known = np.asarray(ratios, float)
    with np.errstate(divide="ignore"):
        return math.exp(math.sqrt(mean(np.log(known) ** 2))) if (known > 0).all() else math.inf


def mean(values: ArrayLike) -> float:
    """The mean."""
    return float(np.asarray(values, float).mean())
