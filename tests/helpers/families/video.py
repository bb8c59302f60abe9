"""Families of videos, which are asked for one frame."""

from collections.abc import Callable
from typing import Any

from diffusers import (
    AutoencoderKLLTXVideo,
    AutoencoderKLWan,
    LTXPipeline,
    LTXVideoTransformer3DModel,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from diffusers import FlowMatchEulerDiscreteScheduler as Flow

from invmm_eval.testing import tiny
from tests.helpers.families.parts import WIDTH


def wan() -> WanPipeline:
    """Wan 2.1: means and spreads of channels, a scheduler of several steps."""
    transformer = WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        text_dim=WIDTH,
        freq_dim=32,
        ffn_dim=32,
        num_layers=2,
        rope_max_seq_len=32,
    )
    tokenizer = tiny.tiny_t5_tokenizer()
    return WanPipeline(
        tokenizer=tokenizer,
        text_encoder=tiny.tiny_t5_encoder(tokenizer),
        transformer=transformer,
        vae=AutoencoderKLWan(base_dim=3, dim_mult=[1, 1, 1, 1], num_res_blocks=1),
        scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
    )


def ltx() -> LTXPipeline:
    """LTX-Video: packed latents, a decoder that is told a time, sampling levels that end above 0."""
    transformer = LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=2,
        attention_head_dim=8,
        cross_attention_dim=16,
        num_layers=1,
        caption_channels=WIDTH,
    )
    vae = AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=(8,) * 4,
        decoder_block_out_channels=(8,) * 4,
        layers_per_block=(1,) * 5,
        decoder_layers_per_block=(1,) * 5,
        spatio_temporal_scaling=(True, True, False, False),
        decoder_spatio_temporal_scaling=(True, True, False, False),
        timestep_conditioning=True,
        patch_size=1,
    )
    tokenizer = tiny.tiny_t5_tokenizer()
    return LTXPipeline(
        scheduler=Flow(use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, shift_terminal=0.1),
        vae=vae,
        text_encoder=tiny.tiny_t5_encoder(tokenizer),
        tokenizer=tokenizer,
        transformer=transformer,
    )


VIDEO: dict[str, Callable[[], Any]] = {"wan": wan, "ltx": ltx}
