"""Prompts of any pipeline: its own ``encode_prompt``, whatever it returns, as contexts."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from invmm_eval.errors import InvMMError
from invmm_eval.models.condition import Condition, Context, FixedPrompt, SoftPrompt, repeat
from invmm_eval.models.generic.boundary import Boundary
from invmm_eval.models.generic.trees import groups, largest, layout, padded, put, take
from invmm_eval.models.text import fixed_text

_OTHERS = ("prompt_2", "prompt_3")
_WORDS = (("a", "b"), ("cat", "dog"), ("red", "blue"))
"""Pairs of words, each of one token in most vocabularies."""

_TEXT = "a"


class Prompts:
    """The prompts of a pipeline.

    Args:
        boundary: The pipeline.
        mode: A prompt mode.
        tokens: Tokens of a searched prompt.
        guided: Options of the call under which the pipeline guides; see :attr:`guidance`.

    Attributes:
        guidance: Whether the pipeline has an unconditional prompt.
    """

    def __init__(self, boundary: Boundary, mode: str, tokens: int, guided: Mapping[str, Any]) -> None:
        self._boundary = boundary
        self._mode = mode
        self._tokens = tokens
        self._tree = self._encoded([_TEXT])
        # A mask may be left out where nothing is masked, so two texts are looked at.
        self._where = layout(self._tree, self._encoded([_TEXT] * 2))
        self._where |= layout(self._encoded([""]), self._encoded([""] * 2))
        self._null = self._negative(guided)
        self.guidance = self._null is not None

    def condition(self, caption: str | None) -> Condition:
        """The prompt of an image."""
        null = self._context("") if self._null is None else self._null
        if self._mode != "soft":
            text = fixed_text(self._mode, caption)
            context = self._context(text)
            shapes = largest(context, null)
            return FixedPrompt(padded(context, shapes), padded(null, shapes), text)
        soft, others = self._soft, {name: caption or "" for name in _OTHERS if name in self._boundary.takes}

        def encode(weights: Tensor) -> Context:
            return take(soft.encode(weights, others), self._where)

        with torch.no_grad():
            first = encode(
                torch.full((1, soft.tokens, soft.vocabulary), 1 / soft.vocabulary, device=self._boundary.device)
            )
        shapes = largest(first, null)
        return SoftPrompt(
            (soft.tokens, soft.vocabulary),
            lambda weights: padded(encode(weights), shapes),
            padded(null, shapes),
            soft.read,
            device=self._boundary.device,
        )

    def calls(self, context: Context) -> Iterator[tuple[Tensor | None, dict[str, Any]]]:
        """Arguments of a call of the pipeline with these prompts, for each group of rows of equal sizes."""
        for index, rows in groups(context):
            yield index, {"encode": put(self._tree, self._where, rows)}

    def plain(self, rows: int, dtype: torch.dtype | None = None) -> dict[str, Any]:
        """Arguments of a call of the pipeline with ``rows`` prompts that do not matter, in a precision."""
        context = repeat(take(self._tree, self._where), rows)
        if dtype:
            context = {name: row.to(dtype) if row.is_floating_point() else row for name, row in context.items()}
        return {"encode": put(self._tree, self._where, context)}

    @cached_property
    def _soft(self) -> "_Soft":
        return _Soft(self._boundary, self._tokens)

    def _encoded(self, texts: list[str], **given: Any) -> list[Any]:
        with torch.no_grad():
            return self._boundary.encodings(len(texts), prompt=texts, **given)

    def _context(self, text: str) -> Context:
        return take(self._encoded([text]), self._where)

    def _negative(self, guided: Mapping[str, Any]) -> Context | None:
        """The unconditional prompt: what is encoded besides the prompt when the pipeline guides."""
        for negative in ({}, {"negative_prompt": [""]}):
            given = {**guided, **negative}
            doubled = {name: value * 2 for name, value in negative.items()}
            tree = self._encoded([_TEXT], **given)
            where = layout(tree, self._encoded([_TEXT] * 2, **{**given, **doubled}))
            rest = {path: axis for path, axis in where.items() if path not in self._where}
            found, own = take(tree, rest), take(self._tree, self._where)
            if len(found) == len(own) > 0:
                return dict(zip(own, found.values(), strict=True))
        return None


class _Soft:
    """Mixtures of tokens in place of the tokens of a placeholder, in the pipeline's first text encoder.

    Args:
        boundary: The pipeline.
        tokens: The most tokens to search.

    Attributes:
        tokens: Tokens that are searched.
        vocabulary: Rows of the embedding table.

    Raises:
        InvMMError: The pipeline has no text encoder whose tokens can be mixed.
    """

    def __init__(self, boundary: Boundary, tokens: int) -> None:
        pipe = boundary.pipe
        encoder = getattr(pipe, "text_encoder", None)
        others = [name for name in ("text_encoder_2", "text_encoder_3") if getattr(pipe, name, None) is not None]
        if encoder is None or (others and _OTHERS[0] not in boundary.takes):
            raise InvMMError(
                f"A {type(pipe).__name__} has no text encoder of its own for the prompt that is searched; take "
                "prompt_mode=caption or prompt_mode=empty."
            )
        self._boundary = boundary
        self._table: Tensor = encoder.get_input_embeddings().weight
        # T5 has two modules for one table.
        tables = [module for module in encoder.modules() if getattr(module, "weight", None) is self._table]
        self._embeddings = [module for module in tables if isinstance(module, nn.Embedding)]
        self._tokenizer: Any = getattr(pipe, "tokenizer", None) or getattr(pipe, "processor", None)
        self.vocabulary = len(self._table)
        self._text, self._span = self._place(tokens)
        self.tokens = len(self._span)

    def encode(self, weights: Tensor, others: Mapping[str, str]) -> list[Any]:
        """The encodings of mixtures ``(n, L, V)``; the other encoders read ``others``."""
        scale = getattr(self._embeddings[0], "embed_scale", 1.0)
        mixed = weights.to(self._table.dtype) @ self._table * scale

        def replace(_: nn.Module, __: Any, output: Tensor) -> Tensor:
            return output.index_copy(1, self._span, mixed.to(output.dtype))

        n = len(weights)
        given = {name: [text] * n for name, text in others.items()}
        with _hooked(self._embeddings, replace):
            return self._boundary.encodings(n, prompt=[self._text] * n, **given)

    def read(self, logits: Tensor) -> str:
        """The most likely token at each place, as text."""
        tokenizer = getattr(self._tokenizer, "tokenizer", self._tokenizer)
        text: str = tokenizer.decode(logits.argmax(dim=1).tolist())
        return text

    def _place(self, tokens: int) -> tuple[str, Tensor]:
        """A placeholder of so many words, and where its tokens are: where those of another one differ.

        Fewer words are placed where the pipeline cuts the prompt; more tokens than words are those of longer words.
        """
        found: list[tuple[str, Tensor]] = []
        for pair in _WORDS:
            texts = [" ".join([word] * tokens) for word in pair]
            first, second = map(self._ids, texts)
            if first.shape == second.shape:
                places = (first != second)[0].nonzero()[:, 0]
                if 0 < len(places) <= tokens:
                    found.append((texts[0], places))
                if len(places) == tokens:
                    break
        if not found:
            raise InvMMError("The tokens of a prompt cannot be found in its encoding; take prompt_mode=caption.")
        return max(found, key=lambda each: len(each[1]))

    def _ids(self, text: str) -> Tensor:
        """The tokens that the encoder's table is asked for, with those of templates and padding."""
        found: list[Tensor] = []

        def keep(_: nn.Module, args: tuple[Tensor], __: Tensor) -> None:
            found.append(args[0])

        with torch.no_grad(), _hooked(self._embeddings, keep):
            self._boundary.encodings(1, prompt=[text])
        return found[0]


@contextmanager
def _hooked(modules: Sequence[nn.Module], hook: Any) -> Iterator[None]:
    handles = [module.register_forward_hook(hook) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
