"""The condition of a model: nothing, a fixed prompt, or a prompt that is searched along with the noise.

A condition returns *contexts*: mappings of named tensors whose first dimension is the number of draws. The search joins
and slices them by rows; only the backbone that made the condition knows the names.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Generator, Tensor

Context = Mapping[str, Tensor]
"""Named tensors with a common first dimension; empty for an unconditional model."""


class Condition(Protocol):
    """Contexts for one image, which may have parameters to search."""

    def parameters(self) -> Mapping[str, Tensor]:
        """Leaf tensors to optimise and to save, by name; empty if nothing is searched."""
        ...

    def rsample(self, n: int, generator: Generator) -> Context:
        """Draw ``n`` contexts, differentiable in the parameters. The generator lives on the model's device."""
        ...

    def null(self, n: int) -> Context:
        """``n`` contexts of the unconditional pass of classifier-free guidance (Ho and Salimans 2022)."""
        ...

    def prompt(self) -> str | None:
        """The present prompt as readable text; None where the model takes none."""
        ...


class Unconditional:
    """The condition of an unconditional model."""

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
        """None."""
        return None


class FixedPrompt:
    """A fixed prompt, encoded once for all draws.

    Args:
        context: Its context, one row.
        null: That of the unconditional pass, one row.
        text: The prompt.
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
    """A searched prompt: each of its tokens is a random mixture over the vocabulary.

    With logits ``theta`` of shape (L, V), zero at first, a draw is ``w = softmax((theta + g) / tau)`` with standard
    Gumbel ``g`` (Jang et al. 2017, "Categorical Reparameterization with Gumbel-Softmax"). Ma et al. 2025, section 4.

    Args:
        shape: Tokens and vocabulary, (L, V).
        encode: Contexts of mixtures ``w`` ``(n, L, V)``, differentiable.
        null: Context of the unconditional pass, one row.
        read: Returns the text of logits ``(L, V)``.
        device: Where the model is.
        tau: Temperature, above 0; the lower, the closer a mixture is to a single token.
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


def has_own_prompt(condition: Condition) -> bool:
    """Whether the contexts are of one image alone: by a prompt that is searched, or a given one that is not empty."""
    return bool(condition.parameters() or condition.prompt())


def different_scales(condition: Condition, guidance: tuple[float, ...]) -> tuple[float, ...]:
    """The guidance scales whose samples are different ones of this condition.

    With a given prompt, scale 0 is none of it. The empty prompt gives about the same samples at all scales.
    """
    if condition.parameters():
        return guidance
    prompted = tuple(scale for scale in guidance if scale) or guidance
    return prompted[:1] if condition.prompt() == "" else prompted


def repeat(context: Context, n: int) -> Context:
    """Repeat a context of one row ``n`` times, without copies."""
    return {name: tensor.expand(n, *tensor.shape[1:]) for name, tensor in context.items()}


def join(contexts: Sequence[Context]) -> Context:
    """Concatenate the rows of contexts that have the same names."""
    return {name: torch.cat([context[name] for context in contexts]) for name in contexts[0]}


def rows(context: Context, index: slice | Tensor) -> Context:
    """The rows of ``context`` at ``index``."""
    return {name: tensor[index] for name, tensor in context.items()}
