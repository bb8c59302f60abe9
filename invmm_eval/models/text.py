"""A text encoder that takes mixtures of tokens in place of tokens, so that a prompt can be searched by gradient.

A prompt of L tokens is ``begin, token_1 ... token_L, end``; T5 has no begin mark. Here each token is a mixture ``w``
over the vocabulary, and the encoder receives ``w @ E`` instead of rows of its embedding table E. Position embeddings,
mask and final norm are the encoder's own: with one-hot ``w`` the result is that of the tokens themselves.
Ma et al. 2025, "An Inversion-based Measure of Memorization for Diffusion Models", section 4.
"""

from typing import Any

import torch
from torch import Tensor, nn

from invmm_eval.errors import InvMMError
from invmm_eval.models.pipelines import frozen

PROMPT_MODES = ("soft", "caption", "empty")
"""The prompt is searched, is the image's caption, or is empty."""


def check_prompt_mode(mode: str) -> str:
    """Return a prompt mode unchanged.

    Raises:
        InvMMError: The mode is unknown.
    """
    if mode not in PROMPT_MODES:
        raise InvMMError(f"There is no prompt_mode {mode!r}; choose one of {', '.join(PROMPT_MODES)}.")
    return mode


def fixed_text(mode: str, caption: str | None) -> str:
    """The prompt in a mode that does not search it.

    Raises:
        InvMMError: The mode is ``caption`` and there is no caption.
    """
    if mode == "empty":
        return ""
    if caption is None:
        raise InvMMError("prompt_mode=caption needs a caption for each image; pass them with captions= or --captions.")
    return caption


class SoftTextEncoder:
    """A frozen text encoder of transformers that takes mixtures of tokens.

    Args:
        encoder: An encoder with an embedding table (``get_input_embeddings``); it is not changed.
        tokenizer: Its tokenizer, with an end mark and optionally a begin mark.
        places: Number of tokens of a whole prompt, marks included; None takes the tokenizer's ``model_max_length``.

    Attributes:
        device: Device of the encoder.
        length: Number of tokens between the marks (L).
        vocabulary: Number of rows of the embedding table (V).
    """

    def __init__(self, encoder: Any, tokenizer: Any, *, places: int | None = None) -> None:
        self._encoder = frozen(encoder)
        self._table: Tensor = self._encoder.get_input_embeddings().weight
        self._embeddings = _GivenEmbeddings()
        self._encoder.set_input_embeddings(self._embeddings)
        self._tokenizer = tokenizer
        begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
        # Slices, since a list as an index is copied to the device at every call.
        self._before = self._table[:0] if begin is None else self._table[begin : begin + 1]
        self._after = self._table[end : end + 1]
        self._places: int = places or tokenizer.model_max_length
        self.device = self._table.device
        self.length = self._places - len(self._before) - 1
        self.vocabulary = len(self._table)

    def __call__(self, weights: Tensor, **options: Any) -> Any:
        """The encoder's output, differentiable in ``weights``.

        Args:
            weights: Mixtures ``(n, L, V)``, each row of V summing to 1.
            **options: Passed to the encoder, for example ``output_hidden_states``.
        """
        n = len(weights)
        before, after = (marks.expand(n, -1, -1) for marks in (self._before, self._after))
        mixed = weights.to(self._table.dtype) @ self._table
        self._embeddings.embeddings = torch.cat([before, mixed, after], dim=1)
        # The encoder uses the ids only to find the end mark, where it reads a pooled output.
        ids = torch.zeros((n, self._places), dtype=torch.long, device=self.device)
        ids[:, -1] = self._tokenizer.eos_token_id
        return self._encoder(ids, **options)

    def read(self, logits: Tensor) -> str:
        """The most likely token at each place of ``logits`` ``(L, V)``, as text."""
        text: str = self._tokenizer.decode(logits.argmax(dim=1).tolist())
        return text


class _GivenEmbeddings(nn.Module):
    """Replaces the embedding table: returns the embeddings that were set, whatever the ids."""

    embeddings: Tensor

    def forward(self, ids: Tensor) -> Tensor:  # noqa: ARG002
        return self.embeddings
