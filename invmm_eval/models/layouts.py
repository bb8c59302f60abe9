"""Folders that are no pipelines or are not there, and what to do."""

from contextlib import suppress
from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from invmm_eval.errors import did_you_mean

_MODULAR = "modular_model_index.json"


def why_no_pipeline(folder: Path) -> str:
    """What a folder without model_index.json is, as a sentence."""
    if (folder / _MODULAR).is_file():
        return of_blocks(folder)
    if (folder / "pytorch_lora_weights.safetensors").is_file():
        return f"{folder} is a LoRA; name the model that it was trained on by --model, and the folder by --lora."
    if networks := sorted(file.parent.name for file in folder.glob("*/config.json")):
        return (
            f"{folder} has no model_index.json and holds networks alone ({', '.join(networks)}), as trainings save "
            "them between steps; load the base with one of them in its place, and name what save_pretrained wrote."
        )
    return f"{folder} has no model_index.json; name the folder that save_pretrained wrote."


def why_no_folder(model: str | Path, revision: str | None) -> str | None:
    """That there is no such folder, as a sentence with similar names beside it; None for a model of the Hub.

    A name whose first part is a folder here is a path, unless it has a revision or the Hub's cache has the model.
    """
    place, folder = str(model).rstrip("/"), Path(model)
    beside = "/" in place and folder.parent.is_dir()
    near = [other.name for other in folder.parent.glob("*/")] if beside else ()
    told = f"There is no folder {model}{did_you_mean(folder.name, near, 3, place.removesuffix(folder.name))}"
    if isinstance(model, Path) or folder.is_absolute() or place.startswith(".") or place.count("/") > 1:
        return f"{told}."
    if not beside or revision or _is_cached(place):
        return None
    return f"{told}; {folder.parent} is a folder here, so for a model of the Hub name its revision, such as main."


def _is_cached(model: str) -> bool:
    with suppress(HFValidationError):
        return isinstance(try_to_load_from_cache(model, "model_index.json"), str)
    return False


def of_blocks(model: object) -> str:
    """What a modular repository is, as a sentence."""
    return (
        f"{model} has no model_index.json: if it is a modular repository ({_MODULAR}), it is made of blocks and has no "
        "call from a prompt to an image, which audits read; take a repository of the same weights with a pipeline."
    )
