"""All that is added to a stored model: LoRAs, and tokens of textual inversion."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from invmm_eval.models.embedding import add_embeddings
from invmm_eval.models.lora import add_loras, read_loras
from invmm_eval.models.weight_files import read_files, sha256


class Additions:
    """Files that are added to a model.

    Args:
        lora: LoRAs, as :func:`invmm_eval.models.lora.read_loras` reads them.
        embedding: Tokens, ``FILE[:TOKEN]`` as :func:`invmm_eval.models.weight_files.read_files` reads them.

    Raises:
        InvMMError: A file is not there, or of another kind.
    """

    def __init__(self, lora: str | None, embedding: str | None) -> None:
        self._loras = read_loras(lora)
        self._embeddings = list(read_files(embedding, "embedding"))

    @property
    def records(self) -> dict[str, list[dict[str, Any]]]:
        """What identifies them in a config, by their kind; empty if there are none."""
        kinds: dict[str, tuple[str, Sequence[tuple[Path, float | str]]]] = {
            "loras": ("weight", self._loras),
            "embeddings": ("token", self._embeddings),
        }
        return {
            name: [{"file": file.name, "sha256": sha256(file), value: given} for file, given in parts]
            for name, (value, parts) in kinds.items()
            if parts
        }

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
