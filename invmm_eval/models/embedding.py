"""Textual inversion: tokens whose embeddings were trained (Gal et al. 2022, "An Image is Worth One Word")."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from invmm_eval.errors import InvMMError
from invmm_eval.models.pipelines import first_line

_ENCODERS = {"clip_l": "text_encoder", "clip_g": "text_encoder_2"}
"""The encoder of a tensor by its name, in files with tensors for two."""
_UNNAMED = ("emb_params", *_ENCODERS)
"""Names of tensors that are no tokens; there the token is the name of the file, as in AUTOMATIC1111's web UI."""


def add_embeddings(pipeline: Any, embeddings: Sequence[tuple[Path, str]]) -> None:
    """Add tokens to the tokenizers and text encoders of a pipeline.

    Args:
        pipeline: The pipeline.
        embeddings: ``.safetensors`` files of one token each, with what stands for it in prompts; empty takes that of
            the file.

    Raises:
        InvMMError: The pipeline takes no embeddings, or one is for another model or has a token that it knows.
    """
    name = type(pipeline).__name__
    if not hasattr(pipeline, "load_textual_inversion"):
        raise InvMMError(f"diffusers has no textual inversion for a {name}.")
    for file, given in embeddings:
        try:
            for key, tensor in load_file(file).items():
                encoder = _encoder(pipeline, key, tensor)
                token = given or (file.stem if key in _UNNAMED else key)
                with torch.random.fork_rng(devices=[]):  # new rows are drawn before they are set
                    pipeline.load_textual_inversion(
                        tensor,
                        token=token,
                        text_encoder=getattr(pipeline, encoder),
                        tokenizer=getattr(pipeline, encoder.replace("text_encoder", "tokenizer")),
                    )
        except (ValueError, SafetensorError) as error:
            raise InvMMError(f"The embedding {file} does not fit this {name}: {first_line(error)}.") from error


def _encoder(pipeline: Any, key: str, tensor: Tensor) -> str:
    """The name of the text encoder that a tensor is for: that of its name, or the first one of its width."""
    names = [_ENCODERS[key]] if key in _ENCODERS else list(_ENCODERS.values())
    encoders = {name: encoder for name in names if (encoder := getattr(pipeline, name, None)) is not None}
    widths = {name: encoder.get_input_embeddings().weight.shape[1] for name, encoder in encoders.items()}
    for name, width in widths.items():
        if tensor.ndim in (1, 2) and tensor.shape[-1] == width:
            return name
    known = (
        f"and its tokens have {' or '.join(map(str, widths.values()))} numbers"
        if widths
        else "for no such text encoder"
    )
    raise ValueError(f"{key} has the shape {tuple(tensor.shape)}, {known}")
