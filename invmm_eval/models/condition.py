"""What a model is told besides the noise: nothing, or a prompt that is searched along with the noise.

A condition hands out *contexts*: plain mappings of named tensors whose first dimension counts draws. The engine
joins and cuts them by rows and never looks inside; only the backbone that made the condition knows the names.
"""

from collections.abc import Callable, Mapping, Sequence
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


class FixedPrompt:
    """A prompt that stays as it is, encoded once for all draws.

    Args:
        context: Its context, one row.
        null: That of the unconditional pass, one row.
        text: The prompt itself.
    """

    def __init__(self, context: Context, null: Context, text: str) -> None:
        self._context = context
        self._null = null
        self._text = text

    def parameters(self) -> Mapping[str, Tensor]:
        """Nothing to search."""
        return {}

    def rsample(self, n: int, generator: Generator) -> Context:  # noqa: ARG002
        """The same context ``n`` times."""
        return repeat(self._context, n)

    def null(self, n: int) -> Context:
        """The same null context ``n`` times."""
        return repeat(self._null, n)

    def prompt(self) -> str:
        """The text."""
        return self._text


class SoftPrompt:
    """A prompt that is searched: each of its tokens a random mixture over the vocabulary.

    With logits ``theta`` of shape (L, V), zero at first, a draw is ``w = softmax((theta + g) / tau)`` with standard
    Gumbel ``g`` (Jang et al. 2017, "Categorical Reparameterization with Gumbel-Softmax"). Ma et al. 2025, section 4.

    Args:
        shape: Tokens and vocabulary, (L, V).
        encode: Contexts of mixtures ``w`` ``(n, L, V)``, differentiable.
        null: Context of the unconditional pass, one row.
        read: The text of logits ``(L, V)``.
        device: Where the model is.
        tau: Temperature, above 0; the lower, the nearer is a mixture to one token.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        encode: Callable[[Tensor], Context],
        null: Context,
        read: Callable[[Tensor], str],
        *,
        device: torch.device,
        tau: float = 2.0,
    ) -> None:
        self.logits = torch.zeros(shape, device=device, requires_grad=True)
        self._encode = encode
        self._null = null
        self._read = read
        self._tau = tau

    def parameters(self) -> Mapping[str, Tensor]:
        """``logits``, the theta above."""
        return {"logits": self.logits}

    def rsample(self, n: int, generator: Generator) -> Context:
        """The contexts of ``n`` mixtures."""
        exponential = torch.empty((n, *self.logits.shape), device=self.logits.device).exponential_(generator=generator)
        return self._encode(((self.logits - exponential.log()) / self._tau).softmax(dim=-1))

    def null(self, n: int) -> Context:
        """The same null context ``n`` times."""
        return repeat(self._null, n)

    def prompt(self) -> str:
        """The most likely tokens."""
        return self._read(self.logits.detach())


def repeat(context: Context, n: int) -> Context:
    """A context of one row, ``n`` times, without copies."""
    return {name: tensor.expand(n, *tensor.shape[1:]) for name, tensor in context.items()}


def join(contexts: Sequence[Context]) -> Context:
    """Stack the rows of contexts that have the same names."""
    return {name: torch.cat([context[name] for context in contexts]) for name in contexts[0]}


def rows(context: Context, index: slice | Tensor) -> Context:
    """The rows of ``context`` at ``index``."""
    return {name: tensor[index] for name, tensor in context.items()}
