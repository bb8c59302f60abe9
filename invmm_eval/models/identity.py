"""The identity of a model's weights."""

import hashlib
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from torch import nn


def weights_identity(model: object, revision: str | None = None) -> str | None:
    """The identity of a model's weights, which distinguishes models of the same name; None where it is unknown.

    It is the SHA-256 of a folder's configurations and weights, or of the tensors of a loaded pipeline, or the commit of
    a model from the Hub that was loaded.
    """
    digest = hashlib.sha256()
    if isinstance(model, DiffusionPipeline):
        for part, module in sorted(model.components.items()):
            for name, tensor in module.state_dict().items() if isinstance(module, nn.Module) else ():
                digest.update(f"{part} {name}".encode())
                digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()
    if not isinstance(model, str | Path):
        return None
    if Path(model).is_dir():
        for file in sorted(Path(model).rglob("*")):
            if file.suffix in (".json", ".safetensors"):
                digest.update(file.relative_to(model).as_posix().encode())
                with file.open("rb") as opened:
                    digest.update(hashlib.file_digest(opened, "sha256").digest())
        return digest.hexdigest()
    try:
        index = try_to_load_from_cache(str(model), "model_index.json", revision=revision)
    except HFValidationError:
        return None
    return Path(index).parent.name if isinstance(index, str) else None
