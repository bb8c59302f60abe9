"""The adaptive weight lambda between sensitivity (replicate) and normality (stay near the standard normal).

Ma et al. 2025, section 3.3: lambda starts at ``first_weight`` and grows by ``delta`` a step; at a check it is halved
instead where the average loss fell by less than ``xi`` since the check before.
"""

import math

from invmm_eval.recipe import Recipe


class AdaptiveWeight:
    """One image's lambda."""

    def __init__(self, recipe: Recipe) -> None:
        self.value = recipe.first_weight
        self._recipe = recipe
        self._average = math.inf

    def grow(self) -> None:
        """After a step without a check: push towards normality."""
        self.value += self._recipe.delta

    def check(self, average: float) -> None:
        """After a step with a check, given the loss averaged over the window: relax where the fit stalls."""
        if self._average - average < self._recipe.xi:
            self.value /= 2
        else:
            self.grow()
        self._average = average
