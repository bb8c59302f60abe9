"""Families that predict noise or velocity, chains of models, and models of classes."""

from collections.abc import Callable
from typing import Any

from diffusers import (
    CogVideoXDDIMScheduler,
    CogView3PlusPipeline,
    CogView3PlusTransformer2DModel,
    DDIMPipeline,
    DDIMScheduler,
    DDPMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    EDMEulerScheduler,
    HunyuanDiT2DModel,
    HunyuanDiTPipeline,
    IFPipeline,
    Kandinsky3Pipeline,
    Kandinsky3UNet,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    PixArtSigmaPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    UNet2DModel,
)

from invmm_eval.testing import tiny
from tests.helpers.families import parts
from tests.helpers.families.parts import WIDTH

NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def pixart_sigma() -> PixArtSigmaPipeline:
    """PixArt-sigma."""
    return PixArtSigmaPipeline(**tiny.tiny_pixart().components)


def lcm() -> LatentConsistencyModelPipeline:
    """A latent consistency model, with its guidance as an input."""
    base = tiny.tiny_stable_diffusion()
    unet = UNet2DConditionModel.from_config(base.unet.config, time_cond_proj_dim=8)
    parts_of_base = {**base.components, "unet": unet, "scheduler": LCMScheduler(**NOISE)}
    return LatentConsistencyModelPipeline(**parts_of_base, requires_safety_checker=False)


def sdxl_edm() -> StableDiffusionXLPipeline:
    """Stable Diffusion XL with the noise levels of EDM, as Playground 2.5."""
    base = tiny.tiny_sdxl()
    return StableDiffusionXLPipeline(
        **{**base.components, "scheduler": EDMEulerScheduler(sigma_min=0.002, sigma_max=80.0)}, add_watermarker=False
    )


def hunyuan() -> HunyuanDiTPipeline:
    """HunyuanDiT: a BERT and a T5 that read one prompt, velocity and variance."""
    encoder, tokenizer = parts.bert()
    second = tiny.tiny_t5_tokenizer()
    transformer = HunyuanDiT2DModel(
        sample_size=8,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=2,
        in_channels=4,
        cross_attention_dim=WIDTH,
        cross_attention_dim_t5=WIDTH,
        pooled_projection_dim=4,
        hidden_size=WIDTH,
        text_len=77,
        text_len_t5=256,
        activation_fn="gelu-approximate",
    )
    return HunyuanDiTPipeline(
        vae=parts.kl(4),
        text_encoder=encoder,
        tokenizer=tokenizer,
        transformer=transformer,
        scheduler=DDPMScheduler(**{**NOISE, "beta_end": 0.03}, prediction_type="v_prediction"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        text_encoder_2=tiny.tiny_t5_encoder(second),
        tokenizer_2=second,
    )


def kandinsky3() -> Kandinsky3Pipeline:
    """Kandinsky 3."""
    tokenizer = tiny.tiny_t5_tokenizer()
    unet = Kandinsky3UNet(
        time_embedding_dim=WIDTH,
        groups=2,
        attention_head_dim=4,
        layers_per_block=2,
        block_out_channels=(WIDTH, 2 * WIDTH),
        cross_attention_dim=4,
        encoder_hid_dim=WIDTH,
    )
    return Kandinsky3Pipeline(
        tokenizer=tokenizer,
        text_encoder=tiny.tiny_t5_encoder(tokenizer),
        unet=unet,
        scheduler=DDPMScheduler(**{**NOISE, "beta_end": 0.02}),
        movq=parts.movq(),
    )


def cogview3() -> CogView3PlusPipeline:
    """CogView 3 Plus: velocity, with a last time of pure noise."""
    tokenizer = tiny.tiny_t5_tokenizer()
    transformer = CogView3PlusTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        text_embed_dim=WIDTH,
        time_embed_dim=16,
        condition_dim=2,
        pos_embed_max_size=8,
        sample_size=8,
    )
    return CogView3PlusPipeline(
        tokenizer=tokenizer,
        text_encoder=tiny.tiny_t5_encoder(tokenizer),
        vae=parts.kl(4),
        transformer=transformer,
        scheduler=CogVideoXDDIMScheduler(**NOISE, prediction_type="v_prediction", rescale_betas_zero_snr=True),
    )


def deepfloyd() -> IFPipeline:
    """The first stage of DeepFloyd IF: pixels, learned variance, dynamic thresholding."""
    tokenizer = tiny.tiny_t5_tokenizer()
    unet = UNet2DConditionModel(
        sample_size=16,
        layers_per_block=1,
        block_out_channels=(8, 16),
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        in_channels=3,
        out_channels=6,
        cross_attention_dim=WIDTH,
        encoder_hid_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=4,
        addition_embed_type="text",
        addition_embed_type_num_heads=2,
        act_fn="gelu",
    )
    scheduler = DDPMScheduler(
        beta_schedule="squaredcos_cap_v2", thresholding=True, sample_max_value=1.5, variance_type="learned_range"
    )
    return IFPipeline(
        tokenizer=tokenizer,
        text_encoder=tiny.tiny_t5_encoder(tokenizer),
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        watermarker=None,
        requires_safety_checker=False,
    )


def dit(classes: int = 1000) -> DiTPipeline:
    """DiT: a class for each image, noise and variance."""
    transformer = DiTTransformer2DModel(
        sample_size=8,
        num_layers=2,
        patch_size=4,
        attention_head_dim=8,
        num_attention_heads=2,
        in_channels=4,
        out_channels=8,
        num_embeds_ada_norm=classes,
    )
    names = {0: "tench, Tinca tinca", 1: "goldfish"}
    return DiTPipeline(
        transformer=transformer,
        vae=parts.kl(4),
        scheduler=DDIMScheduler(beta_start=0.0001, beta_end=0.02, clip_sample=False),
        id2label=names,
    )


def pixel_classes() -> DDIMPipeline:
    """A pixel model of 5 classes, as ADM has them (Dhariwal and Nichol 2021)."""
    unet = UNet2DModel(
        sample_size=8,
        layers_per_block=1,
        block_out_channels=(8, 8),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        num_class_embeds=5,
    )
    return DDIMPipeline(unet, DDIMScheduler())


def ddim() -> DDIMPipeline:
    """A pixel model without classes."""
    return DDIMPipeline(tiny.tiny_ddpm().unet, DDIMScheduler())


CLASSIC: dict[str, Callable[[], Any]] = {
    "stable-diffusion": tiny.tiny_stable_diffusion,
    "stable-diffusion-xl": tiny.tiny_sdxl,
    "pixart-alpha": tiny.tiny_pixart,
    "pixart-sigma": pixart_sigma,
    "lcm": lcm,
    "hunyuan": hunyuan,
    "kandinsky3": kandinsky3,
    "cogview3": cogview3,
    "if": deepfloyd,
    "DiT": dit,
    "EDM": sdxl_edm,
    "LDM": tiny.tiny_ldm,
    "DDPM": tiny.tiny_ddpm,
    "DDIM": ddim,
    "DDIM with classes": pixel_classes,
}
