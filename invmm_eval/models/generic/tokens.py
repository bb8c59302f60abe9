"""Tokens of texts that are encoded at every step: they are made once, and copied to the device once."""

from typing import Any, Self

from torch import Tensor

_MOST = 64


class Remembering:
    """A tokenizer that keeps its answers."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._answers: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the tokenizer answers."""
        key = repr((args, kwargs))
        if key not in self._answers:
            if len(self._answers) == _MOST:
                self._answers.clear()
            answer = self._tokenizer(*args, **kwargs)
            for name, part in answer.items():
                if isinstance(part, Tensor):
                    answer[name] = part.as_subclass(_Copied)
            self._answers[key] = answer
        return self._answers[key]


class _Copied(Tensor):
    """A tensor whose copies are kept, since the host would wait for each."""

    _copies: dict[str, Tensor]

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """The copy."""
        copies: dict[str, Any] = self.__dict__.setdefault("_copies", {})
        key = repr((args, kwargs))
        if key not in copies:
            copies[key] = self.as_subclass(Tensor).to(*args, **kwargs)
        return copies[key]  # type: ignore[no-any-return]
