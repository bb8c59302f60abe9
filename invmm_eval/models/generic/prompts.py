"""Prompts of any pipeline: its own ``encode_prompt``, whatever it returns, as contexts."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from invmm_eval.errors import InvMMError
from invmm_eval.models.condition import Condition, Context, FixedPrompt, SoftPrompt, repeat
from invmm_eval.models.generic.boundary import Boundary
from invmm_eval.models.generic.tokens import Remembering
from invmm_eval.models.generic.trees import groups, largest, layout, padded, put, take
from invmm_eval.models.hooked import hooked
from invmm_eval.models.text import fixed_text

_PROMPTS = {"text_encoder": "prompt", "text_encoder_2": "prompt_2", "text_encoder_3": "prompt_3"}
"""The argument of the call that each text encoder reads."""

_WORDS = (("cat", "dog"), ("red", "blue"), ("a", "b"))
"""Pairs of words, each of one token in most vocabularies."""

_TEXT = "a"


class Prompts:
    """The prompts of a pipeline.

    Args:
        boundary: The pipeline.
        mode: A prompt mode.
        tokens: Tokens of a searched prompt.
        searched: Names of the text encoders whose tokens are searched; the others read the caption.
        guided: Options of the call under which the pipeline guides; see :attr:`guidance`.

    Attributes:
        guidance: Whether the pipeline has an unconditional prompt.
    """

    def __init__(
        self, boundary: Boundary, mode: str, tokens: int, searched: Sequence[str], guided: Mapping[str, Any]
    ) -> None:
        self._boundary = boundary
        self._mode = mode
        self._tokens = tokens
        self._searched = searched
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
        soft = self._soft

        def encode(weights: Tensor) -> Context:
            return take(soft.encode(weights, caption or ""), self._where)

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
        return _Soft(self._boundary, self._tokens, self._searched, calls=len(self._tree))

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
    """Mixtures of tokens in place of the tokens of a placeholder, in text encoders of one vocabulary.

    Args:
        boundary: The pipeline.
        tokens: The most tokens to search.
        searched: Names of the text encoders.
        calls: How often the pipeline encodes a prompt.

    Attributes:
        tokens: Tokens that are searched.
        vocabulary: Rows that all embedding tables have.

    Raises:
        InvMMError: The pipeline has no such text encoder, or none whose tokens can be mixed.
    """

    def __init__(self, boundary: Boundary, tokens: int, searched: Sequence[str], calls: int) -> None:
        pipe = boundary.pipe
        encoders = [getattr(pipe, name, None) for name in searched]
        present = [name for name in _PROMPTS if getattr(pipe, name, None) is not None]
        others = [_PROMPTS[name] for name in present if name not in searched]
        if None in encoders or hasattr(pipe, "prior") or not set(others) <= set(boundary.takes):
            raise InvMMError(
                f"A {type(pipe).__name__} has no text encoder of its own for the prompt that is searched; take "
                "prompt_mode=caption or prompt_mode=empty."
            )
        for name, part in list(vars(pipe).items()):
            if name.startswith("tokenizer") and callable(part):
                vars(pipe)[name] = Remembering(part)
        self._boundary = boundary
        self._given = [_PROMPTS[name] for name in searched]
        self._others = others
        self._calls = calls
        self._tables = [_Table(encoder) for encoder in encoders]
        self._tokenizer: Any = getattr(pipe, "tokenizer", None) or getattr(pipe, "processor", None)
        self.vocabulary = min(len(table.weight) for table in self._tables)
        self._text, self._spans = self._place(tokens)
        self.tokens = len(self._spans[0])

    def encode(self, weights: Tensor, caption: str) -> list[Any]:
        """The encodings of mixtures ``(n, L, V)``; the other encoders read ``caption``."""
        n = len(weights)
        given = {**dict.fromkeys(self._given, [self._text] * n), **dict.fromkeys(self._others, [caption] * n)}
        with ExitStack() as stack:
            for table, span in zip(self._tables, self._spans, strict=True):
                stack.enter_context(table.mixed(weights, span))
            return self._boundary.encodings(n, calls=self._calls, **given)

    def read(self, logits: Tensor) -> str:
        """The most likely token at each place, as text."""
        tokenizer = getattr(self._tokenizer, "tokenizer", self._tokenizer)
        text: str = tokenizer.decode(logits.argmax(dim=1).tolist())
        return text

    def _place(self, tokens: int) -> tuple[str, list[Tensor]]:
        """A placeholder of so many words, and where its tokens are in each encoder: where those of another one differ.

        Fewer words are placed where the pipeline cuts the prompt; more tokens than words are those of longer words.
        """
        found: list[tuple[str, list[Tensor]]] = []
        tokenizer = getattr(self._tokenizer, "tokenizer", self._tokenizer)
        room = tokenizer.model_max_length - tokenizer.num_special_tokens_to_add()
        tokens = min(tokens, room)
        for pair in _WORDS:
            words = min(tokens, room // max(len(tokenizer.tokenize(word)) for word in pair))
            texts = [" ".join([word] * words) for word in pair]
            ids = [self._ids(text) for text in texts]
            if all(first.shape == second.shape for first, second in zip(*ids, strict=True)):
                places = [(first != second)[0].nonzero()[:, 0] for first, second in zip(*ids, strict=True)]
                if len({len(place) for place in places}) == 1 and 0 < len(places[0]) <= tokens:
                    found.append((texts[0], places))
                    if len(places[0]) == tokens:
                        break
        if not found:
            raise InvMMError("The tokens of a prompt cannot be found in its encoding; take prompt_mode=caption.")
        return max(found, key=lambda each: len(each[1][0]))

    def _ids(self, text: str) -> list[Tensor]:
        """The tokens that each encoder's table is asked for, with those of templates and padding."""
        with ExitStack() as stack, torch.no_grad():
            found = [stack.enter_context(table.asked()) for table in self._tables]
            self._boundary.encodings(1, calls=self._calls, **{name: [text] for name in self._given})
        return [ids[0] for ids in found]


class _Table:
    """The embedding table of a text encoder, which can answer with mixtures."""

    def __init__(self, encoder: Any) -> None:
        self.weight: Tensor = encoder.get_input_embeddings().weight
        # T5 has two modules for one table.
        modules = [module for module in encoder.modules() if getattr(module, "weight", None) is self.weight]
        self._modules = [module for module in modules if isinstance(module, nn.Embedding)]

    @contextmanager
    def mixed(self, weights: Tensor, span: Tensor) -> Iterator[None]:
        """Answer with mixtures ``(n, L, V)`` at the places ``span``."""
        scale = getattr(self._modules[0], "embed_scale", 1.0)
        table = self.weight[: weights.shape[2]].to(weights.device)
        mixtures = weights.to(table.dtype) @ table * scale

        def replace(_: nn.Module, __: Any, output: Tensor) -> Tensor:
            return output.index_copy(1, span, mixtures.to(output.dtype))

        with hooked(self._modules, replace):
            yield

    @contextmanager
    def asked(self) -> Iterator[list[Tensor]]:
        """The tokens that are asked for, call by call."""
        found: list[Tensor] = []
        with hooked(self._modules, lambda _, args, __: found.append(args[0])):
            yield found
