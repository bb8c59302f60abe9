"""Stable Diffusion in the layouts of its authors' checkpoints, by the tables of diffusers' conversion scripts."""

import re
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors.torch import save_file
from torch import Tensor

_UNET = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


_OPEN_CLIP = {
    "embeddings.position_embedding.weight": "positional_embedding",
    "embeddings.token_embedding": "token_embedding",
    "final_layer_norm": "ln_final",
    "encoder.layers.": "transformer.resblocks.",
    "layer_norm": "ln_",
    ".fc1.": ".c_fc.",
    ".fc2.": ".c_proj.",
    "self_attn": "attn",
}


def write_original(pipeline: StableDiffusionPipeline | StableDiffusionXLPipeline, file: Path) -> Path:
    """Write a pipeline's weights as one file, with the keys of CompVis' or of Stability AI's repository."""
    unet, vae, encoder = pipeline.unet, pipeline.vae, pipeline.text_encoder
    xl = isinstance(pipeline, StableDiffusionXLPipeline)
    first = "conditioner.embedders.0" if xl else "cond_stage_model"
    save_file(
        {
            **{
                f"model.diffusion_model.{_unet(name, unet.config.layers_per_block)}": tensor
                for name, tensor in unet.state_dict().items()
            },
            **{
                f"first_stage_model.{_vae(name, len(vae.config.block_out_channels))}": _convolution(name, tensor)
                for name, tensor in vae.state_dict().items()
            },
            **{
                f"{first}.transformer.text_model.{name.removeprefix('text_model.')}": tensor
                for name, tensor in encoder.state_dict().items()
            },
            **(_open_clip(pipeline.text_encoder_2.state_dict()) if xl else {}),
        },
        file,
    )
    return file


def _open_clip(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The second encoder of SDXL, whose queries, keys and values are one tensor there."""
    found = {}
    for name, tensor in tensors.items():
        renamed = name.removeprefix("text_model.")
        for part, other in _OPEN_CLIP.items():
            renamed = renamed.replace(part, other)
        if "q_proj." in name:
            parts = [tensors[name.replace("q_proj", kind)] for kind in ("q_proj", "k_proj", "v_proj")]
            found[renamed.replace("q_proj.", "in_proj_")] = torch.cat(parts)
        elif renamed == "text_projection.weight":
            found["text_projection"] = tensor.T.contiguous()
        elif "k_proj." not in name and "v_proj." not in name:
            found[renamed] = tensor
    return {f"conditioner.embedders.1.model.{name}": tensor for name, tensor in found.items()}


def _unet(name: str, layers: int) -> str:
    each = layers + 1
    if match := re.fullmatch(r"(down|up)_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.*)", name):
        side, block, kind, layer, rest = match.groups()
        place = int(block) * each + int(layer)
        where = f"input_blocks.{place + 1}" if side == "down" else f"output_blocks.{place}"
        return f"{where}.0.{_renamed(rest, _RESNET)}" if kind == "resnets" else f"{where}.1.{rest}"
    if match := re.fullmatch(r"down_blocks\.(\d+)\.downsamplers\.0\.conv\.(.*)", name):
        return f"input_blocks.{(int(match[1]) + 1) * each}.0.op.{match[2]}"
    if match := re.fullmatch(r"up_blocks\.(\d+)\.upsamplers\.0\.(.*)", name):
        return f"output_blocks.{int(match[1]) * each + layers}.1.{match[2]}"  # after blocks without attention
    if match := re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d+)\.(.*)", name):
        resnet = match[1] == "resnets"
        return (
            f"middle_block.{2 * int(match[2])}.{_renamed(match[3], _RESNET)}"
            if resnet
            else f"middle_block.1.{match[3]}"
        )
    return _renamed(name, {**_UNET, "conv_in": "input_blocks.0.0"})


def _vae(name: str, blocks: int) -> str:
    name = re.sub(r"down_blocks\.(\d+)\.resnets", r"down.\1.block", name)
    name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d+)\.resnets", lambda at: f"up.{blocks - 1 - int(at[1])}.block", name)
    name = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda at: f"up.{blocks - 1 - int(at[1])}.upsample", name)
    name = re.sub(r"mid_block\.resnets\.(\d+)", lambda at: f"mid.block_{int(at[1]) + 1}", name)
    if "mid_block.attentions.0." in name:
        before, _, rest = name.partition("mid_block.attentions.0.")
        return f"{before}mid.attn_1.{_renamed(rest, _ATTENTION)}"
    return name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")


def _renamed(name: str, names: dict[str, str]) -> str:
    part = next((part for part in names if name.startswith(f"{part}.")), "")
    return names[part] + name.removeprefix(part) if part else name


def _convolution(name: str, tensor: Tensor) -> Tensor:
    """The weights of attention, which are 1x1 convolutions there."""
    return tensor[:, :, None, None] if re.search(r"attentions\.0\.to_.*weight", name) else tensor
