"""Small pipelines of every family, built offline in a fraction of a second: real classes, random weights.

All make images of 16x16 pixels. Latent ones have 8x8 latents, text-guided ones real tokenizers with a vocabulary of
lower-case ASCII. Weights are the same at every call, and PyTorch's global random numbers stay where they were.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from itertools import accumulate
from typing import Any, ParamSpec, TypeVar

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    PixArtAlphaPipeline,
    PixArtTransformer2DModel,
    PNDMScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    UNet2DModel,
    VQModel,
)
from diffusers.pipelines.deprecated import LDMPipeline
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

SIDE = 16
"""Side of the images in pixels."""

LATENT_SIDE = 8
WIDTH = 16
"""Channels of every network and text encoder."""

WORDS = ("a", "the", "of", "and", "with", "red", "blue", "green", "face", "heart", "cat", "dog", "photo", "picture")
"""Words of one token each; other words are spelt letter by letter."""

_LETTERS = "!'(),-.0123456789:?abcdefghijklmnopqrstuvwxyz"

P = ParamSpec("P")
T = TypeVar("T")


def tiny_clip_tokenizer(pad_token: str = "<|endoftext|>", words: Sequence[str] = WORDS) -> CLIPTokenizer:
    """CLIP's byte-pair encoding with 77 places.

    Args:
        pad_token: The end mark as OpenAI's CLIP has it; ``"!"``, whose id is 0, as OpenCLIP's models have it.
        words: Words that are one token each.
    """
    spelt = [[*word[:-1], f"{word[-1]}</w>"] for word in words if len(word) > 1]
    pairs = [pair for parts in spelt for pair in zip(accumulate(parts), parts[1:], strict=False)]
    merges = list(dict.fromkeys(pairs))
    tokens = [*_LETTERS, *(f"{letter}</w>" for letter in _LETTERS), *("".join(pair) for pair in merges)]
    vocabulary = {token: index for index, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77, pad_token=pad_token)


def tiny_t5_tokenizer(words: Sequence[str] = WORDS) -> T5Tokenizer:
    """T5's unigram model of word pieces, without sentinels; ``words`` are one token each."""
    pieces = ["▁", *_LETTERS, *(f"▁{word}" for word in words)]
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((piece, -1.0) for piece in pieces)]
    return T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=512)


def tiny_clip_encoder(tokenizer: CLIPTokenizer, *, projection: bool = False, hidden_act: str = "quick_gelu") -> Any:
    """A CLIP text encoder, with or without the projection of its pooled output; OpenCLIP's ones take ``gelu``."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        hidden_act=hidden_act,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with seeded():
        return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config).eval()


def tiny_t5_encoder(tokenizer: T5Tokenizer, width: int = WIDTH) -> T5EncoderModel:
    """The encoder half of a T5 with gated GELU."""
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=width,
        d_kv=8,
        d_ff=2 * width,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )
    with seeded():
        return T5EncoderModel(config).eval()


@contextmanager
def seeded() -> Iterator[None]:
    """A context in which weights are drawn the same each time; PyTorch's global random numbers stay as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def ready(pipeline: Any) -> Any:
    """The pipeline in evaluation mode, as ``from_pretrained`` returns it, and without progress bars."""
    for part in pipeline.components.values():
        if isinstance(part, nn.Module):
            part.eval()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _built(make: Callable[P, T]) -> Callable[P, T]:
    """The pipeline that a function makes, :func:`seeded` and :func:`ready`."""

    @wraps(make)
    def built(*arguments: P.args, **options: P.kwargs) -> T:
        with seeded():
            made: T = ready(make(*arguments, **options))
            return made

    return built


@_built
def tiny_ddpm(prediction_type: str = "epsilon") -> DDPMPipeline:
    """A pixel model: UNet2DModel with 1,000 linear times."""
    return DDPMPipeline(_unet(SIDE, channels=3), DDPMScheduler(prediction_type=prediction_type))


@_built
def tiny_ldm(autoencoder: str = "vq") -> LDMPipeline:
    """An unconditional latent model.

    Args:
        autoencoder: ``vq`` for a VQModel with 3 latent channels, ``kl`` for an AutoencoderKL with 4.
    """
    vae = _kl(4) if autoencoder == "kl" else VQModel(**_CODER, latent_channels=3, num_vq_embeddings=32)
    scheduler = DDIMScheduler(beta_start=0.0015, beta_end=0.0195, beta_schedule="scaled_linear", clip_sample=False)
    return LDMPipeline(vae, _unet(LATENT_SIDE, vae.config.latent_channels), scheduler)


@_built
def tiny_stable_diffusion(version: int = 1) -> StableDiffusionPipeline:
    """Stable Diffusion 1 (noise prediction, OpenAI's CLIP) or 2 (velocity prediction, OpenCLIP)."""
    tokenizer = tiny_clip_tokenizer() if version == 1 else tiny_clip_tokenizer("!")
    encoder = tiny_clip_encoder(tokenizer, hidden_act="quick_gelu" if version == 1 else "gelu")
    prediction_type = "epsilon" if version == 1 else "v_prediction"
    return StableDiffusionPipeline(
        vae=_kl(4),
        text_encoder=encoder,
        tokenizer=tokenizer,
        unet=_text_unet(WIDTH),
        scheduler=PNDMScheduler(**_SD_TIMES, skip_prk_steps=True, prediction_type=prediction_type),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


@_built
def tiny_sdxl() -> StableDiffusionXLPipeline:
    """Stable Diffusion XL: two text encoders, the pooled output of the second, six time ids."""
    first, second = tiny_clip_tokenizer(), tiny_clip_tokenizer("!")
    encoders = tiny_clip_encoder(first), tiny_clip_encoder(second, projection=True, hidden_act="gelu")
    unet = _text_unet(
        2 * WIDTH,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=WIDTH + 6 * 8,
    )
    return StableDiffusionXLPipeline(
        vae=_kl(4, scaling_factor=0.13025, force_upcast=True),
        text_encoder=encoders[0],
        text_encoder_2=encoders[1],
        tokenizer=first,
        tokenizer_2=second,
        unet=unet,
        scheduler=EulerDiscreteScheduler(**_SD_TIMES),
        add_watermarker=False,
    )


@_built
def tiny_sd3() -> StableDiffusion3Pipeline:
    """Stable Diffusion 3.5: flow matching with shift 3, two CLIPs and a T5 as wide as both together."""
    first, second, third = tiny_clip_tokenizer(), tiny_clip_tokenizer("!"), tiny_t5_tokenizer()
    encoders = (
        tiny_clip_encoder(first, projection=True),
        tiny_clip_encoder(second, projection=True, hidden_act="gelu"),
        tiny_t5_encoder(third, 2 * WIDTH),
    )
    transformer = SD3Transformer2DModel(
        sample_size=LATENT_SIDE,
        in_channels=16,
        out_channels=16,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=2 * WIDTH,
        caption_projection_dim=WIDTH,
        pooled_projection_dim=2 * WIDTH,
        pos_embed_max_size=LATENT_SIDE,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    )
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_kl(16, scaling_factor=1.5305, shift_factor=0.0609, **_NO_QUANT),
        text_encoder=encoders[0],
        tokenizer=first,
        text_encoder_2=encoders[1],
        tokenizer_2=second,
        text_encoder_3=encoders[2],
        tokenizer_3=third,
    )


@_built
def tiny_flux(guidance_embeds: bool = True) -> FluxPipeline:
    """Flux: packed latents, CLIP's pooled output and T5's tokens; with the guidance embedding of the dev model."""
    first, second = tiny_clip_tokenizer(), tiny_t5_tokenizer()
    encoders = tiny_clip_encoder(first), tiny_t5_encoder(second)
    transformer = FluxTransformer2DModel(
        in_channels=4 * 16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        guidance_embeds=guidance_embeds,
        axes_dims_rope=(4, 2, 2),
    )
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=guidance_embeds),
        vae=_kl(16, scaling_factor=0.3611, shift_factor=0.1159, **_NO_QUANT),
        text_encoder=encoders[0],
        tokenizer=first,
        text_encoder_2=encoders[1],
        tokenizer_2=second,
        transformer=transformer,
    )


@_built
def tiny_pixart() -> PixArtAlphaPipeline:
    """PixArt-alpha: a transformer that reads T5's tokens and predicts noise and variance."""
    tokenizer = tiny_t5_tokenizer()
    encoder = tiny_t5_encoder(tokenizer)
    transformer = PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        cross_attention_dim=WIDTH,
        sample_size=LATENT_SIDE,
        caption_channels=WIDTH,
    )
    return PixArtAlphaPipeline(
        tokenizer=tokenizer,
        text_encoder=encoder,
        vae=_kl(4),
        transformer=transformer,
        scheduler=DPMSolverMultistepScheduler(),
    )


_BLOCKS = {"layers_per_block": 1, "block_out_channels": (WIDTH, WIDTH), "norm_num_groups": 4}
_CODER = {
    **_BLOCKS,
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "sample_size": SIDE,
}
_NO_QUANT = {"use_quant_conv": False, "use_post_quant_conv": False}
_SD_TIMES = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


def _unet(side: int, channels: int) -> UNet2DModel:
    return UNet2DModel(
        **_BLOCKS,
        sample_size=side,
        in_channels=channels,
        out_channels=channels,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
    )


def _text_unet(cross_attention_dim: int, **options: Any) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        **_BLOCKS,
        **options,
        sample_size=LATENT_SIDE,
        cross_attention_dim=cross_attention_dim,
        attention_head_dim=2,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )


def _kl(latent_channels: int, **options: Any) -> AutoencoderKL:
    return AutoencoderKL(**_CODER, latent_channels=latent_channels, **options)
