"""Pipelines whose weights are one file in the layout of their authors, as most fine-tunes are shared."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from safetensors import SafetensorError, safe_open

from invmm_eval.errors import InvMMError
from invmm_eval.models.identity import folder_identity, model_identity
from invmm_eval.models.pipelines import PICKLES, first_line, pipeline_class, with_all_weights


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
        return with_all_weights(pipeline, self.file).to(device)


def single_file(model: object, config: object) -> SingleFile | None:
    """The single file that ``model`` is, or None where it is a folder, a Hub id or a loaded pipeline.

    Args:
        model: What the user named.
        config: The folder of its pipeline, if given.

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
        raise InvMMError(
            f"{model} holds weights without the configuration of a pipeline; name a folder of the same kind of model "
            "(its .json files and tokenizers suffice) by --backbone-option config=FOLDER, or a plugin's backbone "
            "that loads such files by --backbone NAME."
        )
    folder = Path(str(config))
    if not folder.is_dir():
        raise InvMMError(f"There is no folder {config}, which config of the single file {model} names.")
    return SingleFile(Path(model), folder)


def _is_lora(file: Path) -> bool:
    """Whether the tensors of a file have names of a LoRA; what is wrong with a damaged file is told by loading it."""
    try:
        with safe_open(file, "pt") as opened:
            return any("lora" in name for name in opened.keys())  # noqa: SIM118
    except (SafetensorError, OSError):
        return False
