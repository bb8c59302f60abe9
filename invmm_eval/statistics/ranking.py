"""How well a value separates two groups."""

from collections.abc import Sequence


def auc(lower: Sequence[float], higher: Sequence[float]) -> float:
    """The area under the ROC curve: the probability that a value of ``lower`` is below one of ``higher``.

    Ties count one half (the Mann-Whitney statistic, divided by the number of pairs).

    Args:
        lower: Values of the group that is expected to be lower; at least one, infinity included.
        higher: Values of the other group, at least one.
    """
    wins = [(a < b) + (a == b) / 2 for a in lower for b in higher]
    return sum(wins) / len(wins)
