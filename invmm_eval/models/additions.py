"""All that is added to a stored model: LoRAs, and tokens of textual inversion."""

from collections.abc import Sequence
from typing import Any

from invmm_eval.models.embedding import Embedding, add_embeddings, read_embeddings
from invmm_eval.models.lora import LoRA, add_loras, read_loras


class Additions:
    """Files that are added to a model.

    Args:
        lora: LoRAs, as :func:`invmm_eval.models.lora.read_loras` reads them.
        embedding: Tokens, as :func:`invmm_eval.models.embedding.read_embeddings` reads them.

    Raises:
        InvMMError: A file is not there, or of another kind.
    """

    def __init__(self, lora: str | None, embedding: str | None) -> None:
        self._loras = read_loras(lora)
        self._embeddings = read_embeddings(embedding)

    @property
    def records(self) -> dict[str, list[dict[str, Any]]]:
        """What identifies them in a config, by their kind; empty if there are none."""
        kinds: dict[str, Sequence[LoRA | Embedding]] = {"loras": self._loras, "embeddings": self._embeddings}
        return {name: [part.record for part in parts] for name, parts in kinds.items() if parts}

    def add(self, pipeline: Any) -> None:
        """Add them to a pipeline.

        Raises:
            InvMMError: One is not for this pipeline.
        """
        if self._embeddings:
            add_embeddings(pipeline, self._embeddings)
        if self._loras:
            add_loras(pipeline, self._loras)

    def __bool__(self) -> bool:
        return bool(self._loras or self._embeddings)
