"""Families that have a backbone of their own: their small models, and what the networks of these return."""

from collections.abc import Callable
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    UNet2DModel,
)
from diffusers.pipelines.deprecated import LDMPipeline
from torch import Tensor
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from benchmarks.families.autoencoders import CHANNELS as LATENT_CHANNELS
from benchmarks.families.data import Data, words
from invmm_eval.testing.tiny import tiny_clip_tokenizer, tiny_t5_tokenizer

SIDE, LATENT_SIDE, WIDTH = 16, 8, 48
TOKENS = 24
"""Places of a prompt: published models have 77 for CLIP and 256 or 512 for T5."""


def clip_tokenizer(known: Data, pad_token: str = "<|endoftext|>") -> CLIPTokenizer:
    """CLIP's, with few places, in which each word of the captions is one token."""
    tokenizer = tiny_clip_tokenizer(pad_token, words(known))
    tokenizer.model_max_length = TOKENS
    return tokenizer


def clip_encoder(tokenizer: CLIPTokenizer, kind: type[CLIPTextModel | CLIPTextModelWithProjection]) -> Any:
    return kind(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            projection_dim=WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def t5_encoder(tokenizer: T5Tokenizer, width: int) -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(vocab_size=len(tokenizer), d_model=width, d_kv=16, d_ff=2 * width, num_layers=2, num_heads=4)
    )


UNET: dict[str, Any] = {
    "sample_size": LATENT_SIDE,
    "in_channels": LATENT_CHANNELS,
    "out_channels": LATENT_CHANNELS,
    "block_out_channels": (WIDTH, 80),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "attention_head_dim": 4,
}
FLOW_TIMES: dict[str, Any] = {"shift": 3.0}


def latent(vae: Any, known: Data) -> LDMPipeline:  # noqa: ARG001
    unet = UNet2DModel(
        **UNET, down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D")
    )
    times = DDIMScheduler(beta_start=0.0015, beta_end=0.0195, beta_schedule="scaled_linear", clip_sample=False)
    return LDMPipeline(vae, unet, times)


def stable_diffusion(prediction_type: str, vae: Any, known: Data) -> StableDiffusionPipeline:
    tokenizer = clip_tokenizer(known, "<|endoftext|>" if prediction_type == "epsilon" else "!")
    unet = UNet2DConditionModel(
        **UNET,
        cross_attention_dim=WIDTH,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=clip_encoder(tokenizer, CLIPTextModel),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            prediction_type=prediction_type,
            clip_sample=False,
            steps_offset=1,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sd3(vae: Any, known: Data) -> StableDiffusion3Pipeline:
    first, second = clip_tokenizer(known), clip_tokenizer(known, "!")
    third = tiny_t5_tokenizer(words(known))
    transformer = SD3Transformer2DModel(
        sample_size=LATENT_SIDE,
        patch_size=2,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        num_layers=3,
        attention_head_dim=24,
        num_attention_heads=4,
        joint_attention_dim=2 * WIDTH,
        caption_projection_dim=4 * 24,
        pooled_projection_dim=2 * WIDTH,
        pos_embed_max_size=LATENT_SIDE,
        qk_norm="rms_norm",
    )
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(**FLOW_TIMES),
        vae=vae,
        text_encoder=clip_encoder(first, CLIPTextModelWithProjection),
        tokenizer=first,
        text_encoder_2=clip_encoder(second, CLIPTextModelWithProjection),
        tokenizer_2=second,
        text_encoder_3=t5_encoder(third, 2 * WIDTH),
        tokenizer_3=third,
    )


def flux(vae: Any, known: Data) -> FluxPipeline:
    first, second = clip_tokenizer(known), tiny_t5_tokenizer(words(known))
    transformer = FluxTransformer2DModel(
        in_channels=4 * LATENT_CHANNELS,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=24,
        num_attention_heads=4,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        guidance_embeds=True,
        axes_dims_rope=(8, 8, 8),
    )
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(**FLOW_TIMES),
        vae=vae,
        text_encoder=clip_encoder(first, CLIPTextModel),
        tokenizer=first,
        text_encoder_2=t5_encoder(second, WIDTH),
        tokenizer_2=second,
        transformer=transformer,
    )


Encode = Callable[[list[str]], tuple[Tensor, ...]]


def encoded(encode: Encode, prompts: list[str]) -> tuple[Tensor, ...]:
    """The encoding of each prompt, made once for each different one."""
    different = sorted(set(prompts))
    index = torch.tensor([different.index(prompt) for prompt in prompts])
    return tuple(part[index] for part in encode(different))


def unconditional_output(pipeline: Any, x_t: Tensor, t: Tensor, prompts: list[str]) -> Tensor:  # noqa: ARG001
    output: Tensor = pipeline.unet(x_t, t).sample
    return output


def clip_output(pipeline: Any, x_t: Tensor, t: Tensor, prompts: list[str]) -> Tensor:
    (hidden,) = encoded(lambda texts: pipeline.encode_prompt(texts, pipeline.device, 1, False)[:1], prompts)
    output: Tensor = pipeline.unet(x_t, t, encoder_hidden_states=hidden).sample
    return output


def sd3_output(pipeline: Any, x_t: Tensor, t: Tensor, prompts: list[str]) -> Tensor:
    def encode(texts: list[str]) -> tuple[Tensor, ...]:
        hidden, _, pooled, _ = pipeline.encode_prompt(
            texts, None, None, do_classifier_free_guidance=False, max_sequence_length=TOKENS
        )
        return hidden, pooled

    hidden, pooled = encoded(encode, prompts)
    output: Tensor = pipeline.transformer(x_t, hidden, pooled, 1000 * t).sample
    return output


def flux_output(pipeline: Any, x_t: Tensor, t: Tensor, prompts: list[str]) -> Tensor:
    hidden, pooled = encoded(lambda texts: pipeline.encode_prompt(texts, None, max_sequence_length=TOKENS)[:2], prompts)
    n, channels, height, width = x_t.shape
    packed = pipeline._pack_latents(x_t, n, channels, height, width)
    places = pipeline._prepare_latent_image_ids(n, height // 2, width // 2, x_t.device, x_t.dtype)
    guidance = torch.full((n,), 3.5, device=x_t.device)
    output = pipeline.transformer(
        packed, hidden, pooled, t, img_ids=places, txt_ids=torch.zeros(TOKENS, 3, device=x_t.device), guidance=guidance
    ).sample
    # The autoencoder's factor is 2, and _unpack_latents expects the size of the image.
    unpacked: Tensor = pipeline._unpack_latents(output, height * 2, width * 2, 2)
    return unpacked
