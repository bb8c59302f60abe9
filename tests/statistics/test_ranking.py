"""The area under the curve, by hand and against scikit-learn."""

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from invmm_eval.statistics.ranking import auc


def test_auc_by_hand() -> None:
    assert auc([0.1], [0.3]) == 1
    assert auc([0.3], [0.1]) == 0
    assert auc([math.inf], [math.inf]) == 0.5
    assert auc([0.1, math.inf], [0.3, math.inf]) == pytest.approx((1 + 1 + 0 + 0.5) / 4)


def test_auc_is_that_of_scikit_learn() -> None:
    random = np.random.default_rng(0)
    lower, higher = random.integers(0, 6, 20).astype(float), random.integers(2, 8, 30).astype(float)
    labels = [1] * len(lower) + [0] * len(higher)
    assert auc(lower.tolist(), higher.tolist()) == pytest.approx(
        roc_auc_score(labels, -np.concatenate([lower, higher]))
    )
