"""How a search ended, and what its result means for someone who must decide."""

from enum import StrEnum

MEMORIZED = 1 / 10_000
"""An image is memorized if the lower limit of the share of plain samples that are copies of it is at least this.

docs/number.md says why.
"""
RAREST = 1 / 100_000
"""The least share that can be measured: below it the estimate is too low."""


class Status(StrEnum):
    """How a search ended."""

    REPLICATED = "replicated"
    """A check was passed: the model replicates the image from noise near the standard normal."""
    EXHAUSTED = "exhausted"
    """No check was passed in all steps: not replicated within the budget."""
    FAILED = "failed"
    """An error occurred; the result's ``error`` says which."""


class Verdict(StrEnum):
    """What a result means; the values are what people read. The worst comes first."""

    MEMORIZED = "memorized"
    """Plain sampling gives copies: the lower limit of their share is at least :data:`MEMORIZED`."""
    REPLICABLE = "replicable"
    """Copies were found, but it was not shown that plain sampling gives them at such a share."""
    NOT_REPLICATED = "not replicated"
    """No copy was found within the budget."""
    FAILED = "failed"
    """The image could not be measured."""

    @property
    def meaning(self) -> str:
        """What it means, in words."""
        least = f"1 in {1 / MEMORIZED:,.0f} plain samples"
        return {
            Verdict.MEMORIZED: f"at least {least} is a copy",
            Verdict.REPLICABLE: f"copies were found, but that at least {least} is a copy was not shown",
            Verdict.NOT_REPLICATED: "no copy was found within the budget",
            Verdict.FAILED: "could not be measured",
        }[self]
