"""Class labels as a condition: given, searched over the classes, or the class that stands for none."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from invmm_eval.errors import InvMMError
from invmm_eval.models.condition import Condition, Context, FixedPrompt, SoftPrompt
from invmm_eval.models.hooked import hooked
from invmm_eval.models.text import fixed_text

LABELS = "class_labels"


class Labels:
    """The classes of a denoiser, whose embeddings are mixed by weights.

    Args:
        network: The denoiser, a view of our own.
        device: Where it computes; its weights may be elsewhere until it does.
        classes: Number of classes.
        names: Class numbers by name.
        mode: ``soft`` searches a mixture of classes, ``caption`` takes the image's caption as the number or name of its
            class, and ``empty`` the class that stands for none.

    Attributes:
        guidance: Whether there is a class that stands for none, which guidance needs.

    Raises:
        InvMMError: The denoiser has no table of classes, or none that stands for no class.
    """

    def __init__(
        self, network: nn.Module, device: torch.device, classes: int, names: Mapping[str, int], mode: str
    ) -> None:
        self._tables = [
            module
            for name, module in network.named_modules()
            if isinstance(module, nn.Embedding) and "class" in name and len(module.weight) in (classes, classes + 1)
        ]
        if not self._tables:
            raise InvMMError("The class of an image does not reach the network by a table, which is not supported.")
        self._classes = classes
        self._names = names
        self._mode = mode
        self._device = device
        self.guidance = len(self._tables[0].weight) > classes
        if mode == "empty" and not self.guidance:
            raise InvMMError(
                "The model has no class that stands for none; take prompt_mode=soft or prompt_mode=caption."
            )

    def condition(self, caption: str | None) -> Condition:
        """The class of an image.

        Raises:
            InvMMError: There is no such class, or the prompt mode needs a caption and there is none.
        """
        null = self._one(self._classes if self.guidance else 0)
        if self._mode == "soft":
            return SoftPrompt((1, self._classes), self._mixed, null, self._read, device=self._device)
        if self._mode == "empty":
            return FixedPrompt(null, null, "")
        text = fixed_text(self._mode, caption)
        number = self._names.get(text, int(text) if text.isdecimal() else -1)
        if not 0 <= number < self._classes:
            raise InvMMError(f"The model has no class {text!r}; give a number from 0 to {self._classes - 1}.")
        return FixedPrompt(self._one(number), null, text)

    def calls(self, context: Context) -> Iterator[tuple[Tensor | None, dict[str, Any]]]:
        """Arguments of a call of the pipeline, while the classes are those of ``context``."""
        with self.mixed(context):
            yield None, {}

    @contextmanager
    def mixed(self, context: Context) -> Iterator[None]:
        """The denoiser gets the mixtures of ``context`` in place of its classes."""
        weights = context[LABELS]

        def mix(module: nn.Module, _: Any, output: Tensor) -> Tensor:
            table: Any = module.weight
            mixed: Tensor = weights.to(table.dtype) @ table[: weights.shape[1]].to(weights.device)
            return mixed.to(output.dtype)

        with hooked(self._tables, mix):
            yield

    def _one(self, number: int) -> Context:
        weights = torch.zeros(1, self._classes + self.guidance, device=self._device)
        weights[:, number] = 1
        return {LABELS: weights}

    def _mixed(self, weights: Tensor) -> Context:
        return {LABELS: nn.functional.pad(weights[:, 0], (0, int(self.guidance)))}

    def _read(self, logits: Tensor) -> str:
        number = int(logits[0].argmax())
        return next((name for name, index in self._names.items() if index == number), str(number))
