"""Families of two models: one makes an embedding of an image from a prompt, the other the image."""

from collections.abc import Callable
from typing import Any

from diffusers import (
    DDIMScheduler,
    KandinskyCombinedPipeline,
    KandinskyV22CombinedPipeline,
    PriorTransformer,
    UnCLIPScheduler,
    UNet2DConditionModel,
)
from diffusers.pipelines.kandinsky.text_encoder import MCLIPConfig, MultilingualCLIP
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModelWithProjection

from invmm_eval.testing import tiny
from tests.helpers.families import parts
from tests.helpers.families.parts import WIDTH


def prior() -> dict[str, Any]:
    """The parts of the first model."""
    tokenizer = tiny.tiny_clip_tokenizer()
    vision = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=8,
        patch_size=4,
    )
    scheduler = UnCLIPScheduler(variance_type="fixed_small_log", prediction_type="sample", clip_sample_range=10.0)
    return {
        "prior_prior": PriorTransformer(
            num_attention_heads=2, attention_head_dim=8, num_layers=1, embedding_dim=WIDTH, num_embeddings=77
        ),
        "prior_image_encoder": CLIPVisionModelWithProjection(vision),
        "prior_text_encoder": tiny.tiny_clip_encoder(tokenizer, projection=True),
        "prior_tokenizer": tokenizer,
        "prior_scheduler": scheduler,
        "prior_image_processor": CLIPImageProcessorPil(size=8, crop_size=8),
    }


def decoder(kind: str) -> dict[str, Any]:
    """The parts of the second model, of which the embedding of an image is an input: ``image`` or ``text_image``."""
    unet = UNet2DConditionModel(
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        in_channels=4,
        out_channels=8,
        addition_embed_type=kind,
        encoder_hid_dim=WIDTH,
        encoder_hid_dim_type=f"{kind}_proj",
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        resnet_time_scale_shift="scale_shift",
    )
    times = DDIMScheduler(beta_start=0.00085, beta_end=0.012, clip_sample=False, steps_offset=1)
    return {"unet": unet, "movq": parts.movq(), "scheduler": times}


def kandinsky() -> KandinskyCombinedPipeline:
    """Kandinsky 2.1, whose second model reads the text too."""
    tokenizer = tiny.tiny_t5_tokenizer()
    config = MCLIPConfig(
        transformerDimSize=WIDTH,
        imageDimSize=WIDTH,
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=90,
    )
    return KandinskyCombinedPipeline(
        **prior(), **decoder("text_image"), text_encoder=MultilingualCLIP(config), tokenizer=tokenizer
    )


def kandinsky22() -> KandinskyV22CombinedPipeline:
    """Kandinsky 2.2."""
    return KandinskyV22CombinedPipeline(**prior(), **decoder("image"))


STAGED: dict[str, Callable[[], Any]] = {"kandinsky": kandinsky, "kandinsky22": kandinsky22}
