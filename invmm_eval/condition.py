"""What a model is told besides the noise: nothing, or a prompt that is searched along with the noise.

A condition hands out *contexts*: plain mappings of named tensors whose first dimension counts draws. The engine
joins and cuts them by rows and never looks inside; only the backbone that made the condition knows the names.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Generator, Tensor

Context = Mapping[str, Tensor]
"""Named tensors with a common first dimension; empty for an unconditional model."""


class Condition(Protocol):
    """Contexts for one image, perhaps with parameters of their own."""

    def parameters(self) -> Mapping[str, Tensor]:
        """Leaf tensors to optimise and to save, by name; empty where nothing is searched."""
        ...

    def rsample(self, n: int, generator: Generator) -> Context:
        """Draw ``n`` contexts, differentiable in the parameters. The generator lives on the model's device."""
        ...

    def null(self, n: int) -> Context:
        """``n`` contexts of the unconditional pass of classifier-free guidance (Ho and Salimans 2022)."""
        ...

    def prompt(self) -> str | None:
        """The prompt as a person can read it, the searched one as it is now; None where the model takes none."""
        ...


class Unconditional:
    """The condition of a model that takes none."""

    def parameters(self) -> Mapping[str, Tensor]:
        """Nothing to search."""
        return {}

    def rsample(self, n: int, generator: Generator) -> Context:  # noqa: ARG002
        """The empty context."""
        return {}

    def null(self, n: int) -> Context:  # noqa: ARG002
        """The empty context."""
        return {}

    def prompt(self) -> str | None:
        """There is none."""
        return None


def join(contexts: Sequence[Context]) -> Context:
    """Stack the rows of contexts that have the same names."""
    return {name: torch.cat([context[name] for context in contexts]) for name in contexts[0]}


def rows(context: Context, index: slice | Tensor) -> Context:
    """The rows of ``context`` at ``index``."""
    return {name: tensor[index] for name, tensor in context.items()}
