"""Families of rectified flows whose prompts are read by language models of pictures and text."""

from collections.abc import Callable
from typing import Any

from diffusers import FlowMatchEulerDiscreteScheduler as Flow
from diffusers import (
    Flux2Pipeline,
    Ideogram4Pipeline,
    Ideogram4Transformer2DModel,
    Krea2Pipeline,
    Krea2Transformer2DModel,
    NucleusMoEImagePipeline,
    NucleusMoEImageTransformer2DModel,
    PRXPipeline,
    PRXTransformer2DModel,
    ZImageOmniPipeline,
)
from transformers import (
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLModel,
    Siglip2ImageProcessorPil,
    Siglip2VisionConfig,
    Siglip2VisionModel,
)

from tests.helpers.families import flows, parts
from tests.helpers.families.parts import TEXT, WIDTH


def qwen3_vl(words: int, *, head: bool = False, layers: int = 2) -> Any:
    """A Qwen3-VL."""
    rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 10000.0, "mrope_interleaved": True}
    text = {**TEXT, "num_hidden_layers": layers, "vocab_size": words, "rope_parameters": rope}
    vision = {
        "depth": 1,
        "hidden_size": WIDTH,
        "intermediate_size": WIDTH,
        "num_heads": 2,
        "out_hidden_size": WIDTH,
        "num_position_embeddings": 16,
        "deepstack_visual_indexes": [0],
    }
    config = Qwen3VLConfig(text_config=text, vision_config=vision)
    return (Qwen3VLForConditionalGeneration if head else Qwen3VLModel)(config)


def flux2() -> Flux2Pipeline:
    """FLUX.2, whose guidance is an input of its network."""
    tokenizer = parts.byte_tokenizer()
    text = {**TEXT, "num_hidden_layers": 30, "vocab_size": len(tokenizer), "model_type": "mistral"}
    vision = {
        "model_type": "pixtral",
        "hidden_size": WIDTH,
        "intermediate_size": WIDTH,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "head_dim": 8,
        "image_size": 16,
        "patch_size": 8,
    }
    encoder = Mistral3ForConditionalGeneration(Mistral3Config(text_config=text, vision_config=vision))
    return Flux2Pipeline(
        scheduler=Flow(**flows.SHIFTS),
        vae=parts.flux2_kl(),
        text_encoder=encoder,
        tokenizer=tokenizer,
        transformer=flows.flux2_transformer(3, guidance=True),
    )


def z_image_omni() -> ZImageOmniPipeline:
    """Z-Image Omni, without pictures."""
    vision = Siglip2VisionConfig(
        hidden_size=WIDTH, intermediate_size=WIDTH, num_hidden_layers=1, num_attention_heads=2, num_patches=16
    )
    return ZImageOmniPipeline(
        **flows.z_image().components,
        siglip=Siglip2VisionModel(vision),
        siglip_processor=Siglip2ImageProcessorPil(),
    )


def ideogram4() -> Ideogram4Pipeline:
    """Ideogram 4: text and image in one sequence, guided by another network."""
    tokenizer = parts.byte_tokenizer(2048)
    size = {
        "in_channels": 8,
        "num_layers": 1,
        "attention_head_dim": 16,
        "num_attention_heads": 1,
        "intermediate_size": 16,
        "adaln_dim": 8,
        "llm_features_dim": 13 * WIDTH,
        "mrope_section": (4, 2, 2),
    }
    return Ideogram4Pipeline(
        scheduler=Flow(),
        vae=parts.flux2_kl(),
        text_encoder=qwen3_vl(len(tokenizer), layers=36),
        tokenizer=tokenizer,
        transformer=Ideogram4Transformer2DModel(**size),
        unconditional_transformer=Ideogram4Transformer2DModel(**size),
    )


def krea2() -> Krea2Pipeline:
    """Krea 2: several layers of a text encoder for each token."""
    tokenizer = parts.byte_tokenizer(1024)
    transformer = Krea2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=16,
        timestep_embed_dim=16,
        text_hidden_dim=WIDTH,
        num_text_layers=2,
        text_num_attention_heads=2,
        text_num_key_value_heads=1,
        text_intermediate_size=16,
        num_layerwise_text_blocks=1,
        num_refiner_text_blocks=1,
        axes_dims_rope=(8, 4, 4),
    )
    return Krea2Pipeline(
        scheduler=Flow(**flows.SHIFTS),
        vae=parts.qwen_kl(),
        text_encoder=qwen3_vl(len(tokenizer)),
        tokenizer=tokenizer,
        transformer=transformer,
        text_encoder_select_layers=(0, 1),
    )


def nucleus() -> NucleusMoEImagePipeline:
    """Nucleus-Image: a mixture of experts."""
    tokenizer = parts.byte_tokenizer(1024)
    transformer = NucleusMoEImageTransformer2DModel(
        patch_size=2,
        in_channels=16,
        out_channels=4,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(8, 4, 4),
        num_experts=2,
        moe_intermediate_dim=8,
    )
    return NucleusMoEImagePipeline(
        transformer=transformer,
        scheduler=Flow(**flows.SHIFTS),
        vae=parts.qwen_kl(),
        text_encoder=qwen3_vl(len(tokenizer), head=True, layers=8),
        processor=tokenizer,
    )


def prx() -> PRXPipeline:
    """PRX, whose prompts are encoded without gradients."""
    tokenizer = parts.gemma_tokenizer()
    transformer = PRXTransformer2DModel(
        in_channels=4,
        context_in_dim=WIDTH,
        hidden_size=16,
        num_heads=2,
        depth=1,
        axes_dim=[4, 4],
    )
    return PRXPipeline(
        transformer=transformer,
        scheduler=Flow(shift=3.0),
        text_encoder=parts.gemma2(len(tokenizer)),
        tokenizer=tokenizer,
        vae=parts.kl(4, scaling_factor=0.3611, shift_factor=0.1159),
        default_sample_size=16,
    )


MULTIMODAL: dict[str, Callable[[], Any]] = {
    "flux2": flux2,
    "z-image-omni": z_image_omni,
    "ideogram4": ideogram4,
    "krea2": krea2,
    "nucleusmoe-image": nucleus,
    "prx": prx,
}
