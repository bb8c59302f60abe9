"""LoRAs: what was trained on top of a model (Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models")."""

import logging
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from diffusers.utils import is_peft_available
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import PreTrainedModel

from invmm_eval.errors import InvMMError
from invmm_eval.models.pipelines import first_line
from invmm_eval.models.quiet import unlogged
from invmm_eval.models.weight_files import read_files

_log = logging.getLogger(__name__)


def read_loras(text: str | None) -> list[tuple[Path, float]]:
    """Read ``FILE[:WEIGHT]``, several separated by commas; see :func:`invmm_eval.models.weight_files.read_files`.

    Returns:
        Each ``.safetensors`` file, with the factor of what it adds.

    Raises:
        InvMMError: There is no such file, it is no safetensors file, or a weight is no number.
    """
    return [(file, _weight(file, value)) for file, value in read_files(text, "LoRA")]


def _weight(file: Path, text: str) -> float:
    try:
        weight = float(text or 1)
    except ValueError:
        weight = math.nan
    if not math.isfinite(weight):
        raise InvMMError(f"The weight of the LoRA {file} is {text!r}; give a number, such as {file}:0.8.")
    return weight


def add_loras(pipeline: Any, loras: Sequence[tuple[Path, float]]) -> None:
    """Add LoRAs to the weights of a pipeline, its text encoders included.

    Raises:
        InvMMError: The package peft is missing, the pipeline takes no LoRA, or a LoRA is for another model.
    """
    if not is_peft_available():
        raise InvMMError("LoRAs need the package peft; install it with: pip install 'invmm-eval[lora]'.")
    name = type(pipeline).__name__
    if not hasattr(pipeline, "load_lora_weights"):
        raise InvMMError(f"diffusers has no LoRAs for a {name}.")
    adapters = [f"lora_{number}" for number in range(len(loras))]
    for adapter, (file, _) in zip(adapters, loras, strict=True):
        try:
            # The header of the file may say how its values are scaled, so it is named.
            with _adapters_by_peft(pipeline), _own_words():
                pipeline.load_lora_weights(file.parent, weight_name=file.name, adapter_name=adapter)
        except (RuntimeError, ValueError, LookupError, OSError, SafetensorError) as error:
            raise InvMMError(f"The LoRA {file} does not fit this {name}: {first_line(error)}.") from error
        if adapter not in {known for part in pipeline.get_list_adapters().values() for known in part}:
            raise InvMMError(
                f"The LoRA {file} has no weights for this {name}; one of peft alone is made ready by "
                "the pipeline's save_lora_weights."
            )
        _warn_of_what_is_left_out(pipeline, file, adapter)
    pipeline.set_adapters(adapters, [weight for _, weight in loras])
    pipeline.fuse_lora(adapter_names=adapters)
    pipeline.unload_lora_weights()


def _warn_of_what_is_left_out(pipeline: Any, file: Path, adapter: str) -> None:
    """Warn of layers that diffusers leaves out without a word, as where a file mixes two layouts of names."""
    with safe_open(file, "pt") as tensors:
        ups = [name for name in tensors.keys() if re.search(r"lora[._](B|up)\b", name)]  # noqa: SIM118
        stored = sum(bool(tensors.get_tensor(name).float().any()) for name in ups)
    modules = [part for part in pipeline.components.values() if isinstance(part, nn.Module)]
    named = [parameter for module in modules for parameter in module.named_parameters()]
    added = sum(f"lora_B.{adapter}." in name and bool(value.any()) for name, value in named)
    if added < stored:
        _log.warning(
            "diffusers adds the LoRA %s to %d layers, but it is for %d; the audit is of the model with the former. "
            "Where a file mixes two layouts of names, save it in one by the pipeline's save_lora_weights.",
            *(file, added, stored),
        )


@contextmanager
def _own_words() -> Iterator[None]:
    """A context without the warnings of diffusers and peft that a LoRA leaves layers alone, or that there are several.

    Each is usual. What should be told is told here.
    """
    with unlogged("diffusers.loaders.lora_base", "No LoRA keys associated to"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "While injecting the PEFT adapters|Already found a `peft_config`")
        yield


@contextmanager
def _adapters_by_peft(pipeline: Any) -> Iterator[None]:
    """Text encoders get adapters by peft itself: transformers asks for a version of peft that is not released."""
    encoders = [part for part in pipeline.components.values() if isinstance(part, PreTrainedModel)]
    for encoder in encoders:
        vars(encoder)["load_adapter"] = partial(_load_adapter, encoder)
    try:
        yield
    finally:
        for encoder in encoders:
            del vars(encoder)["load_adapter"]


def _load_adapter(
    encoder: nn.Module, *, adapter_name: str, adapter_state_dict: dict[str, Tensor], peft_config: Any, **_: Any
) -> None:
    from peft import inject_adapter_in_model, set_peft_model_state_dict

    inject_adapter_in_model(peft_config, encoder, adapter_name)
    set_peft_model_state_dict(encoder, adapter_state_dict, adapter_name)
