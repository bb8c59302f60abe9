"""Families of another shape than :class:`tests.helpers.families.Family` has."""

from typing import Any

from diffusers import (
    CMStochasticIterativeScheduler,
    ConsistencyModelPipeline,
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
    KandinskyCombinedPipeline,
    KandinskyV22CombinedPipeline,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    PriorTransformer,
    StableDiffusionXLPipeline,
    UnCLIPScheduler,
    UNet2DConditionModel,
)
from diffusers.pipelines.kandinsky.text_encoder import MCLIPConfig, MultilingualCLIP
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModelWithProjection

from invmm_eval.testing import tiny
from tests.helpers.families import parts
from tests.helpers.families.parts import NOISE, WIDTH
from tests.helpers.pixels import unet


def lcm() -> LatentConsistencyModelPipeline:
    """A latent consistency model, with its guidance as an input."""
    base = tiny.tiny_stable_diffusion()
    unet = UNet2DConditionModel.from_config(base.unet.config, time_cond_proj_dim=8)
    parts_of_base = {**base.components, "unet": unet, "scheduler": LCMScheduler(**NOISE)}
    return LatentConsistencyModelPipeline(**parts_of_base, requires_safety_checker=False)


def consistency() -> ConsistencyModelPipeline:
    """A consistency model of pixels."""
    return ConsistencyModelPipeline(tiny.tiny_ddpm().unet, CMStochasticIterativeScheduler())


def sdxl_edm() -> StableDiffusionXLPipeline:
    """Stable Diffusion XL with the noise levels of EDM, as Playground 2.5."""
    base = tiny.tiny_sdxl()
    return StableDiffusionXLPipeline(**{**base.components, "scheduler": EDMEulerScheduler()}, add_watermarker=False)


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
        out_channels=8,
        num_embeds_ada_norm=classes,
    )
    names = {0: "tench, Tinca tinca", 1: "goldfish"}
    return DiTPipeline(
        transformer=transformer,
        vae=parts.kl(4),
        scheduler=DDIMScheduler(clip_sample=False),
        id2label=names,
    )


def pixel_classes() -> DDIMPipeline:
    """A pixel model of 5 classes, as ADM has them (Dhariwal and Nichol 2021)."""
    return DDIMPipeline(unet(num_class_embeds=5), DDIMScheduler())


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
    scheduler = UnCLIPScheduler(prediction_type="sample", clip_sample_range=10.0)
    return {
        "prior_prior": PriorTransformer(num_attention_heads=2, attention_head_dim=8, num_layers=1, embedding_dim=WIDTH),
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
