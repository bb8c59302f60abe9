"""Families of rectified flows."""

from collections.abc import Callable
from typing import Any

from diffusers import (
    AuraFlowPipeline,
    AuraFlowTransformer2DModel,
    ChromaPipeline,
    ChromaTransformer2DModel,
    CogView4Pipeline,
    CogView4Transformer2DModel,
    DPMSolverMultistepScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    FluxKontextPipeline,
    Lumina2Pipeline,
    Lumina2Transformer2DModel,
    LuminaNextDiT2DModel,
    LuminaPipeline,
    OvisImagePipeline,
    OvisImageTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from diffusers import FlowMatchEulerDiscreteScheduler as Flow

from invmm_eval.testing import tiny
from tests.helpers.families import parts
from tests.helpers.families.parts import WIDTH

SHIFTS = {"use_dynamic_shifting": True, "base_image_seq_len": 4, "max_image_seq_len": 64}


def kontext() -> FluxKontextPipeline:
    """FLUX.1 Kontext, without a picture to edit."""
    return FluxKontextPipeline(**tiny.tiny_flux().components)


def z_image() -> ZImagePipeline:
    """Z-Image: lists of latents and prompts, time from 0 to 1, negated output."""
    tokenizer = parts.byte_tokenizer()
    transformer = ZImageTransformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=WIDTH,
        axes_dims=[8, 4, 4],
        axes_lens=[1024, 32, 32],
    )
    for token in (transformer.x_pad_token, transformer.cap_pad_token):
        token.data.fill_(1.0)
    return ZImagePipeline(
        scheduler=Flow(shift=3.0),
        vae=parts.kl(4, scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=parts.qwen3(len(tokenizer)),
        tokenizer=tokenizer,
        transformer=transformer,
    )


def qwen_image() -> QwenImagePipeline:
    """Qwen-Image: packed latents of a video autoencoder, prompts as long as they are."""
    tokenizer = parts.byte_tokenizer(1024)
    transformer = QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=16,
        out_channels=4,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(8, 4, 4),
    )
    return QwenImagePipeline(
        scheduler=Flow(**SHIFTS, shift_terminal=0.02),
        vae=parts.qwen_kl(),
        text_encoder=parts.qwen25_vl(len(tokenizer)),
        tokenizer=tokenizer,
        transformer=transformer,
    )


def flux2_transformer(layers: int, *, guidance: bool) -> Flux2Transformer2DModel:
    """The denoiser of FLUX.2, for prompts made of so many layers of a text encoder."""
    return Flux2Transformer2DModel(
        in_channels=8,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=layers * WIDTH,
        timestep_guidance_channels=16,
        axes_dims_rope=[4, 4, 4, 4],
        guidance_embeds=guidance,
    )


def flux2_klein() -> Flux2KleinPipeline:
    """FLUX.2 klein: patches normalised by batch statistics."""
    tokenizer = parts.byte_tokenizer()
    return Flux2KleinPipeline(
        scheduler=Flow(**SHIFTS),
        vae=parts.flux2_kl(),
        text_encoder=parts.qwen3(len(tokenizer), head=True, layers=28),
        tokenizer=tokenizer,
        transformer=flux2_transformer(3, guidance=False),
    )


def lumina() -> LuminaPipeline:
    """Lumina-Next."""
    tokenizer = parts.gemma_tokenizer()
    transformer = LuminaNextDiT2DModel(
        sample_size=8,
        in_channels=4,
        hidden_size=32,
        num_layers=1,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=16,
        cross_attention_dim=WIDTH,
    )
    return LuminaPipeline(
        transformer=transformer,
        scheduler=Flow(),
        vae=parts.kl(4),
        text_encoder=parts.gemma(len(tokenizer)),
        tokenizer=tokenizer,
    )


def lumina2() -> Lumina2Pipeline:
    """Lumina 2: time from noise to data, negated output."""
    tokenizer = parts.gemma_tokenizer()
    transformer = Lumina2Transformer2DModel(
        sample_size=8,
        in_channels=4,
        hidden_size=32,
        num_layers=1,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=16,
        axes_dim_rope=[8, 4, 4],
        axes_lens=[512, 16, 16],
        cap_feat_dim=WIDTH,
    )
    return Lumina2Pipeline(
        transformer=transformer,
        scheduler=Flow(**SHIFTS),
        vae=parts.kl(4, shift_factor=0.0609, scaling_factor=1.5035),
        text_encoder=parts.gemma2(len(tokenizer)),
        tokenizer=tokenizer,
    )


def sana() -> SanaPipeline:
    """Sana: DPM-Solver with the sigmas of a flow, a deep-compression autoencoder."""
    tokenizer = parts.gemma_tokenizer()
    transformer = SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_attention_heads=2,
        attention_head_dim=8,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=WIDTH,
        caption_channels=WIDTH,
        sample_size=8,
    )
    return SanaPipeline(
        tokenizer=tokenizer,
        text_encoder=parts.gemma2(len(tokenizer)),
        vae=parts.dc(),
        transformer=transformer,
        scheduler=DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0, solver_order=2
        ),
    )


def chroma() -> ChromaPipeline:
    """Chroma: Flux without CLIP, with a mask of the prompt."""
    tokenizer = tiny.tiny_t5_tokenizer()
    transformer = ChromaTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(4, 4, 8),
        approximator_hidden_dim=32,
        approximator_layers=1,
        approximator_num_channels=16,
    )
    return ChromaPipeline(
        scheduler=Flow(),
        vae=parts.kl(4, shift_factor=0.0609, scaling_factor=1.5035),
        text_encoder=tiny.tiny_t5_encoder(tokenizer),
        tokenizer=tokenizer,
        transformer=transformer,
    )


def aura_flow() -> AuraFlowPipeline:
    """AuraFlow, which reads its time as a number."""
    tokenizer = tiny.tiny_t5_tokenizer()
    transformer = AuraFlowTransformer2DModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        caption_projection_dim=WIDTH,
        joint_attention_dim=WIDTH,
        pos_embed_max_size=64,
    )
    return AuraFlowPipeline(
        tokenizer=tokenizer,
        text_encoder=parts.umt5(len(tokenizer)),
        vae=parts.kl(4),
        transformer=transformer,
        scheduler=Flow(shift=1.73),
    )


def cogview4() -> CogView4Pipeline:
    """CogView 4: prompts padded to multiples of 16."""
    tokenizer = parts.glm_tokenizer()
    transformer = CogView4Transformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        text_embed_dim=WIDTH,
        time_embed_dim=16,
        condition_dim=4,
        sample_size=8,
    )
    return CogView4Pipeline(
        tokenizer=tokenizer,
        text_encoder=parts.glm(len(tokenizer)),
        vae=parts.kl(4),
        transformer=transformer,
        scheduler=Flow(
            base_shift=0.25, max_shift=0.75, base_image_seq_len=256, use_dynamic_shifting=True, time_shift_type="linear"
        ),
    )


def ovis() -> OvisImagePipeline:
    """Ovis-Image."""
    tokenizer = parts.byte_tokenizer()
    transformer = OvisImageTransformer2DModel(
        in_channels=16,
        out_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(4, 4, 8),
    )
    return OvisImagePipeline(
        scheduler=Flow(**SHIFTS),
        vae=parts.kl(4, shift_factor=0.0609, scaling_factor=1.5035),
        text_encoder=parts.qwen3(len(tokenizer)),
        tokenizer=tokenizer,
        transformer=transformer,
    )


FLOWS: dict[str, Callable[[], Any]] = {
    "stable-diffusion-3": tiny.tiny_sd3,
    "flux": tiny.tiny_flux,
    "flux-kontext": kontext,
    "z-image": z_image,
    "qwenimage": qwen_image,
    "flux2-klein": flux2_klein,
    "lumina": lumina,
    "lumina2": lumina2,
    "sana": sana,
    "chroma": chroma,
    "auraflow": aura_flow,
    "cogview4": cogview4,
    "ovis": ovis,
}
