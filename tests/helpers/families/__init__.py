"""Small pipelines of diffusers' text-to-image families and of others: real classes, random weights, built offline."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import diffusers
from diffusers import FlowMatchEulerDiscreteScheduler as Flow
from transformers import Siglip2ImageProcessorPil, Siglip2VisionConfig, Siglip2VisionModel

from invmm_eval.testing import tiny
from tests.helpers.families import others, parts
from tests.helpers.families.parts import NOISE, WIDTH


@dataclass(frozen=True)
class Family:
    """A pipeline of one text encoder, one transformer and one autoencoder.

    Attributes:
        pipeline: Its class, a name of diffusers.
        network: The class of its transformer.
        config: The arguments of the transformer.
        parts: Makers of the scheduler, the autoencoder, the tokenizer, and the text encoder for a tokenizer.
        more: Makers of other parts, and other arguments of the pipeline.
        named: The argument of the pipeline that takes the tokenizer.
        unset: The parameters of the transformer that its class leaves as memory was.
    """

    pipeline: str
    network: str
    config: Mapping[str, Any]
    parts: tuple[Callable[..., Any], ...]
    more: Mapping[str, Any] = field(default_factory=dict)
    named: str = "tokenizer"
    unset: tuple[str, ...] = ()

    def __call__(self) -> Any:
        scheduler, vae, tokenizer_of, encoder = self.parts
        tokenizer, transformer = tokenizer_of(), self.transformer()
        given = {"scheduler": scheduler(), "vae": vae(), "text_encoder": encoder(tokenizer), self.named: tokenizer}
        more = {name: part() if callable(part) else part for name, part in self.more.items()}
        return getattr(diffusers, self.pipeline)(transformer=transformer, **given, **more)

    def transformer(self) -> Any:
        made = getattr(diffusers, self.network)(**self.config)
        for name in self.unset:
            getattr(made, name).data.fill_(1.0)
        return made


def flow(**options: Any) -> Callable[[], Flow]:
    return partial(Flow, **options)


def kl(**options: Any) -> Callable[[], Any]:
    return partial(parts.kl, 4, **options)


SHIFTS = {"use_dynamic_shifting": True, "base_image_seq_len": 4, "max_image_seq_len": 64}
FLUX_KL = kl(shift_factor=0.0609, scaling_factor=1.5035)
Z_KL = kl(scaling_factor=0.3611, shift_factor=0.1159)
ONE_LAYER = {"num_layers": 1, "num_attention_heads": 2, "attention_head_dim": 8}
WIDE_LAYER = {**ONE_LAYER, "attention_head_dim": 16}
QWEN_LAYER = {**WIDE_LAYER, "in_channels": 16, "out_channels": 4, "joint_attention_dim": WIDTH}
LUMINA = {"sample_size": 8, "in_channels": 4, "hidden_size": 32, "num_layers": 1, "num_attention_heads": 2}
LUMINA |= {"num_kv_heads": 1, "multiple_of": 16}
COG = {
    **ONE_LAYER,
    "in_channels": 4,
    "out_channels": 4,
    "text_embed_dim": WIDTH,
    "time_embed_dim": 16,
    "sample_size": 8,
}
FLUX2: dict[str, Any] = {**WIDE_LAYER, "in_channels": 8, "num_single_layers": 1, "joint_attention_dim": 3 * WIDTH}
FLUX2 |= {"timestep_guidance_channels": 16, "axes_dims_rope": [4, 4, 4, 4]}
SANA = {**ONE_LAYER, "in_channels": 4, "out_channels": 4, "num_cross_attention_heads": 2, "sample_size": 8}
SANA |= {"cross_attention_head_dim": 8, "cross_attention_dim": WIDTH, "caption_channels": WIDTH}
LINEAR_SHIFTS = flow(
    base_shift=0.25, max_shift=0.75, base_image_seq_len=256, use_dynamic_shifting=True, time_shift_type="linear"
)
LTX_SHIFTS = flow(use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, shift_terminal=0.1)
STEPS = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
COG_TIMES = partial(
    diffusers.CogVideoXDDIMScheduler, **NOISE, prediction_type="v_prediction", rescale_betas_zero_snr=True
)
LONG = partial(parts.byte_tokenizer, 1024)
GEMMA2, QWEN3 = parts.language("Gemma2"), parts.language("Qwen3")
OF_T5 = (tiny.tiny_t5_tokenizer, tiny.tiny_t5_encoder)
"""A tokenizer and the encoder for it."""
IDEOGRAM: dict[str, Any] = {
    "in_channels": 8,
    "num_layers": 1,
    "attention_head_dim": 16,
    "num_attention_heads": 1,
    "adaln_dim": 8,
}
IDEOGRAM |= {"intermediate_size": 16, "llm_features_dim": 13 * WIDTH, "mrope_section": (4, 2, 2)}

z_image = Family(
    "ZImagePipeline",
    "ZImageTransformer2DModel",
    {
        "in_channels": 4,
        "dim": 32,
        "n_layers": 1,
        "n_refiner_layers": 1,
        "n_heads": 2,
        "n_kv_heads": 2,
        "cap_feat_dim": WIDTH,
        "axes_dims": [8, 4, 4],
        "axes_lens": [1024, 32, 32],
    },
    (flow(shift=3.0), Z_KL, parts.byte_tokenizer, QWEN3),
    unset=("x_pad_token", "cap_pad_token"),
)


def z_image_omni() -> diffusers.ZImageOmniPipeline:
    """Z-Image Omni, without pictures."""
    vision = Siglip2VisionConfig(
        hidden_size=WIDTH, intermediate_size=WIDTH, num_hidden_layers=1, num_attention_heads=2, num_patches=16
    )
    return diffusers.ZImageOmniPipeline(
        **z_image().components,
        siglip=Siglip2VisionModel(vision),
        siglip_processor=Siglip2ImageProcessorPil(),
    )


FAMILIES: dict[str, Callable[[], Any]] = {
    # Families that predict noise or velocity, and models of classes.
    "stable-diffusion": tiny.tiny_stable_diffusion,
    "stable-diffusion-xl": tiny.tiny_sdxl,
    "pixart-alpha": tiny.tiny_pixart,
    "pixart-sigma": lambda: diffusers.PixArtSigmaPipeline(**tiny.tiny_pixart().components),
    "lcm": others.lcm,
    "hunyuan": others.hunyuan,
    "kandinsky3": others.kandinsky3,
    "cogview3": Family(
        "CogView3PlusPipeline",
        "CogView3PlusTransformer2DModel",
        {**COG, "condition_dim": 2, "pos_embed_max_size": 8},
        (COG_TIMES, kl(), *OF_T5),
    ),
    "if": others.deepfloyd,
    "DiT": others.dit,
    "EDM": others.sdxl_edm,
    "LDM": tiny.tiny_ldm,
    "DDPM": tiny.tiny_ddpm,
    "DDIM": lambda: diffusers.DDIMPipeline(tiny.tiny_ddpm().unet, diffusers.DDIMScheduler()),
    "DDIM with classes": others.pixel_classes,
    "consistency": others.consistency,
    # Rectified flows.
    "stable-diffusion-3": tiny.tiny_sd3,
    "flux": tiny.tiny_flux,
    "flux-kontext": lambda: diffusers.FluxKontextPipeline(**tiny.tiny_flux().components),
    "z-image": z_image,
    "qwenimage": Family(
        "QwenImagePipeline",
        "QwenImageTransformer2DModel",
        {**QWEN_LAYER, "axes_dims_rope": (8, 4, 4)},
        (flow(**SHIFTS, shift_terminal=0.02), parts.qwen_kl, LONG, parts.qwen25_vl),
    ),
    "flux2-klein": Family(
        "Flux2KleinPipeline",
        "Flux2Transformer2DModel",
        {**FLUX2, "guidance_embeds": False},
        (flow(**SHIFTS), parts.flux2_kl, parts.byte_tokenizer, parts.language("Qwen3", "ForCausalLM", 28)),
    ),
    "lumina": Family(
        "LuminaPipeline",
        "LuminaNextDiT2DModel",
        {**LUMINA, "cross_attention_dim": WIDTH},
        (flow(), kl(), parts.gemma_tokenizer, parts.language("Gemma")),
        unset=("pad_token",),
    ),
    "lumina2": Family(
        "Lumina2Pipeline",
        "Lumina2Transformer2DModel",
        {**LUMINA, "axes_dim_rope": [8, 4, 4], "axes_lens": [512, 16, 16], "cap_feat_dim": WIDTH},
        (flow(**SHIFTS), FLUX_KL, parts.gemma_tokenizer, GEMMA2),
    ),
    "sana": Family(
        "SanaPipeline",
        "SanaTransformer2DModel",
        SANA,
        (partial(diffusers.DPMSolverMultistepScheduler, **STEPS), parts.dc, parts.gemma_tokenizer, GEMMA2),
    ),
    "sana-sprint": Family(
        "SanaSprintPipeline",
        "SanaTransformer2DModel",
        {**SANA, "guidance_embeds": True, "qk_norm": "rms_norm_across_heads"},
        (partial(diffusers.SCMScheduler, sigma_data=0.5), parts.dc, parts.gemma_tokenizer, GEMMA2),
    ),
    "chroma": Family(
        "ChromaPipeline",
        "ChromaTransformer2DModel",
        {
            **WIDE_LAYER,
            "in_channels": 16,
            "num_single_layers": 1,
            "joint_attention_dim": WIDTH,
            "approximator_hidden_dim": 32,
            "approximator_layers": 1,
            "approximator_num_channels": 16,
            "axes_dims_rope": (4, 4, 8),
        },
        (flow(), FLUX_KL, *OF_T5),
    ),
    "auraflow": Family(
        "AuraFlowPipeline",
        "AuraFlowTransformer2DModel",
        {
            "sample_size": 8,
            "num_mmdit_layers": 1,
            "num_single_dit_layers": 1,
            "attention_head_dim": 8,
            "num_attention_heads": 2,
            "caption_projection_dim": WIDTH,
            "joint_attention_dim": WIDTH,
            "pos_embed_max_size": 64,
        },
        (flow(shift=1.73), kl(), tiny.tiny_t5_tokenizer, parts.umt5),
    ),
    "cogview4": Family(
        "CogView4Pipeline",
        "CogView4Transformer2DModel",
        {**COG, "condition_dim": 4},
        (LINEAR_SHIFTS, kl(), parts.glm_tokenizer, parts.language("Glm", pad_token_id=0, eos_token_id=0)),
    ),
    "ovis": Family(
        "OvisImagePipeline",
        "OvisImageTransformer2DModel",
        {
            **WIDE_LAYER,
            "in_channels": 16,
            "out_channels": 16,
            "num_single_layers": 1,
            "joint_attention_dim": WIDTH,
            "axes_dims_rope": (4, 4, 8),
        },
        (flow(**SHIFTS), FLUX_KL, parts.byte_tokenizer, QWEN3),
    ),
    # Rectified flows whose prompts are read by language models of pictures and text.
    "flux2": Family(
        "Flux2Pipeline",
        "Flux2Transformer2DModel",
        {**FLUX2, "guidance_embeds": True},
        (flow(**SHIFTS), parts.flux2_kl, parts.byte_tokenizer, parts.mistral3),
    ),
    "z-image-omni": z_image_omni,
    "ideogram4": Family(
        "Ideogram4Pipeline",
        "Ideogram4Transformer2DModel",
        IDEOGRAM,
        (flow(), parts.flux2_kl, partial(parts.byte_tokenizer, 2048), partial(parts.qwen3_vl, layers=36)),
        more={"unconditional_transformer": partial(diffusers.Ideogram4Transformer2DModel, **IDEOGRAM)},
    ),
    "krea2": Family(
        "Krea2Pipeline",
        "Krea2Transformer2DModel",
        {
            **WIDE_LAYER,
            "in_channels": 16,
            "num_key_value_heads": 1,
            "intermediate_size": 16,
            "timestep_embed_dim": 16,
            "text_hidden_dim": WIDTH,
            "num_text_layers": 2,
            "text_num_attention_heads": 2,
            "text_num_key_value_heads": 1,
            "text_intermediate_size": 16,
            "num_layerwise_text_blocks": 1,
            "num_refiner_text_blocks": 1,
            "axes_dims_rope": (8, 4, 4),
        },
        (flow(**SHIFTS), parts.qwen_kl, LONG, parts.qwen3_vl),
        more={"text_encoder_select_layers": (0, 1)},
    ),
    "nucleusmoe-image": Family(
        "NucleusMoEImagePipeline",
        "NucleusMoEImageTransformer2DModel",
        {**QWEN_LAYER, "axes_dims_rope": (8, 4, 4), "num_experts": 2, "moe_intermediate_dim": 8},
        (flow(**SHIFTS), parts.qwen_kl, LONG, partial(parts.qwen3_vl, head=True, layers=8)),
        named="processor",
    ),
    "prx": Family(
        "PRXPipeline",
        "PRXTransformer2DModel",
        {"in_channels": 4, "context_in_dim": WIDTH, "hidden_size": 16, "num_heads": 2, "depth": 1, "axes_dim": [4, 4]},
        (flow(shift=3.0), Z_KL, parts.gemma_tokenizer, GEMMA2),
        more={"default_sample_size": 16},
    ),
    # Chains of two models.
    "kandinsky": others.kandinsky,
    "kandinsky22": others.kandinsky22,
    # Videos of one frame.
    "wan": Family(
        "WanPipeline",
        "WanTransformer3DModel",
        {
            "num_attention_heads": 2,
            "attention_head_dim": 12,
            "text_dim": WIDTH,
            "freq_dim": 32,
            "ffn_dim": 32,
            "num_layers": 2,
            "rope_max_seq_len": 32,
        },
        (partial(diffusers.UniPCMultistepScheduler, **STEPS), parts.wan_vae, *OF_T5),
    ),
    "ltx": Family(
        "LTXPipeline",
        "LTXVideoTransformer3DModel",
        {**ONE_LAYER, "in_channels": 8, "out_channels": 8, "cross_attention_dim": 16, "caption_channels": WIDTH},
        (LTX_SHIFTS, parts.ltx_vae, *OF_T5),
    ),
}
"""Makers of pipelines by the names of AUTO_TEXT2IMAGE_PIPELINES_MAPPING, and names of our own for other kinds."""


def build(name: str) -> Any:
    """The pipeline of a family, as ``from_pretrained`` returns it, with the same weights each time."""
    with tiny.seeded():
        return tiny.ready(FAMILIES[name]())
