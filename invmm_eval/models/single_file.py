"""Pipelines whose weights are one file in the layout of their authors, as most fine-tunes are shared."""

import hashlib
import logging
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.loaders.single_file_utils import fetch_diffusers_config
from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open

from invmm_eval.errors import InvMMError
from invmm_eval.models.identity import folder_identity, model_identity
from invmm_eval.models.pipelines import PICKLES, complete, first_line, pipeline_class

_log = logging.getLogger(__name__)

_CONFIGS = ["*.json", "*.txt", "*.model"]
"""What a pipeline's folder holds besides weights."""


@dataclass(frozen=True)
class SingleFile:
    """A file of weights, and the folder of a pipeline that says what they are.

    Attributes:
        file: A ``.safetensors`` file.
        config: A folder as ``save_pretrained`` writes it, of the same kind of model. Parts whose weights are not in
            the file, such as a T5, are loaded from there.
    """

    file: Path
    config: Path

    @property
    def identity(self) -> str:
        """The SHA-256 of both: another file or another config is another model."""
        return hashlib.sha256(f"{model_identity(self.file)} {folder_identity(self.config)}".encode()).hexdigest()

    def load(self, *, device: torch.device, dtype: torch.dtype) -> Any:
        """Load the pipeline by ``from_single_file`` of the class that the folder names; nothing is downloaded.

        Raises:
            InvMMError: diffusers reads no file of this class, the file does not fit the folder, or it lacks a part
                that the folder has no safetensors of.
        """
        name = pipeline_class(self.config)
        kind: Any = getattr(diffusers, name, None)
        if not hasattr(kind, "from_single_file"):
            raise InvMMError(
                f"{self.config} is of a {name}, which diffusers cannot load from a single file; use the model's folder."
            )
        for part in sorted({file.parent for file in self.config.glob("*/*") if file.suffix in PICKLES}):
            if not any((part / f"{stem}.safetensors").is_file() for stem in ("model", "diffusion_pytorch_model")):
                raise InvMMError(f"{part} has pickled weights, which are never loaded; a folder of configs needs none.")
        how = {"config": str(self.config), "local_files_only": True, "dtype": dtype}
        try:
            pipeline = kind.from_single_file(str(self.file), **how)
        except Exception as error:
            raise InvMMError(
                f"{self.file} cannot be loaded as the {name} of {self.config}: {first_line(error)}"
            ) from error
        return complete(pipeline, self.file, device)


def single_file(model: object, config: object) -> SingleFile | None:
    """The single file that ``model`` is, or None where it is a folder, a Hub id or a loaded pipeline.

    Args:
        model: What the user named.
        config: The folder of its pipeline; None takes that of the model which diffusers finds it to be like, from the
            Hub or its cache.

    Raises:
        InvMMError: The file is not of safetensors, or there is no such folder.
    """
    if not isinstance(model, str | Path) or not Path(model).is_file():
        return None
    if Path(model).suffix != ".safetensors":
        raise InvMMError(
            f"{model} is no .safetensors file, and pickled weights are never loaded: take the model's .safetensors "
            "file or its folder, or name the backbone of a plugin that loads it (invmm-eval new-plugin writes one)."
        )
    if _is_lora(Path(model)):
        raise InvMMError(
            f"{model} is a LoRA; name the model that it was trained on by --model, and the file by --lora."
        )
    if config is None:
        return SingleFile(Path(model), _found(Path(model)))
    folder = Path(str(config))
    if not folder.is_dir():
        raise InvMMError(f"There is no folder {config}, which config of the single file {model} names.")
    return SingleFile(Path(model), folder)


@cache
def _found(file: Path) -> Path:
    """The configs of the published model that a file has the tensors of, without its weights."""
    try:
        with safe_open(file, "pt") as opened:
            shapes = {name: opened.get_slice(name).get_shape() for name in opened.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise InvMMError(f"{file} is damaged: {first_line(error)}.") from error
    tensors = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    name = fetch_diffusers_config(tensors)["pretrained_model_name_or_path"]
    try:
        folder = Path(snapshot_download(name, allow_patterns=_CONFIGS))
    except Exception as error:
        raise InvMMError(
            f"{file} holds weights without the configuration of a pipeline, and the Hub did not give that of {name} "
            f"({first_line(error)}); name a folder of the same kind of model (its .json files and tokenizers suffice) "
            "by --backbone-option config=FOLDER, or a plugin's backbone that loads such files by --backbone NAME."
        ) from error
    _log.warning("%s is read as a model like %s; if it is of another kind, name a folder by config=FOLDER.", file, name)
    return folder


def _is_lora(file: Path) -> bool:
    """Whether the tensors of a file have names of a LoRA; what is wrong with a damaged file is told by loading it."""
    try:
        with safe_open(file, "pt") as opened:
            return any("lora" in name for name in opened.keys())  # noqa: SIM118
    except (SafetensorError, OSError):
        return False
