"""How a search ended."""

from enum import StrEnum


class Status(StrEnum):
    """How a search ended."""

    REPLICATED = "replicated"
    """A check was passed: the model replicates the image from noise near the standard normal."""
    EXHAUSTED = "exhausted"
    """No check was passed in all steps: not replicated within the budget."""
    FAILED = "failed"
    """An error occurred; the result's ``error`` says which."""
