"""Folders that are no pipelines, and what to do with them."""

from pathlib import Path

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


def of_blocks(model: object) -> str:
    """What a modular repository is, as a sentence."""
    return (
        f"{model} has no model_index.json: if it is a modular repository ({_MODULAR}), it is made of blocks and has no "
        "call from a prompt to an image, which audits read; take a repository of the same weights with a pipeline."
    )
