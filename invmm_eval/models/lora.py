"""LoRAs: what was trained on top of a model (Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models")."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers.utils import is_peft_available
from safetensors import SafetensorError
from safetensors.torch import load_file

from invmm_eval.errors import InvMMError
from invmm_eval.models.pipelines import first_line


@dataclass(frozen=True)
class LoRA:
    """A file of weights that are added to a model's.

    Attributes:
        file: A ``.safetensors`` file.
        weight: The factor of what it adds.
    """

    file: Path
    weight: float = 1.0

    @property
    def record(self) -> dict[str, str | float]:
        """What identifies it in a config."""
        digest = hashlib.sha256(self.file.read_bytes()).hexdigest()
        return {"file": self.file.name, "sha256": digest, "weight": self.weight}


def read_loras(text: str | None) -> list[LoRA]:
    """Read ``FILE[:WEIGHT]``, several separated by commas.

    Raises:
        InvMMError: There is no such file, or it is no safetensors file.
    """
    found = []
    for part in (text or "").split(","):
        if not part.strip():
            continue
        name, _, weight = part.strip().rpartition(":")
        try:
            lora = LoRA(Path(name), float(weight)) if name else LoRA(Path(weight))
        except ValueError:
            lora = LoRA(Path(part.strip()))
        if lora.file.suffix != ".safetensors":
            raise InvMMError(f"The LoRA {lora.file} is no .safetensors file; others are never loaded.")
        if not lora.file.is_file():
            raise InvMMError(f"There is no LoRA {lora.file}.")
        found.append(lora)
    return found


def add_loras(pipeline: Any, loras: list[LoRA]) -> Any:
    """Add LoRAs to the weights of a pipeline, which is changed and returned.

    Raises:
        InvMMError: The package peft is missing, the pipeline takes no LoRA, or a LoRA is for another model.
    """
    if not is_peft_available():
        raise InvMMError("LoRAs need the package peft; install it with: pip install 'invmm-eval[lora]'.")
    name = type(pipeline).__name__
    if not hasattr(pipeline, "load_lora_weights"):
        raise InvMMError(f"diffusers has no LoRAs for a {name}.")
    adapters = [f"lora_{number}" for number in range(len(loras))]
    for adapter, lora in zip(adapters, loras, strict=True):
        try:
            pipeline.load_lora_weights(load_file(lora.file), adapter_name=adapter)
        except (RuntimeError, ValueError, LookupError, SafetensorError) as error:
            raise InvMMError(f"The LoRA {lora.file} does not fit this {name}: {first_line(error)}.") from error
        if adapter not in {known for part in pipeline.get_list_adapters().values() for known in part}:
            raise InvMMError(f"The LoRA {lora.file} has no weights for this {name}.")
    pipeline.set_adapters(adapters, [lora.weight for lora in loras])
    pipeline.fuse_lora(adapter_names=adapters)
    pipeline.unload_lora_weights()
    return pipeline
