"""Families of which more is known than their pipelines tell: published recipes, searched encoders, sizes."""

from collections.abc import Mapping
from dataclasses import replace
from inspect import signature
from typing import Any

from invmm_eval.models.generic.backbone import Diffusers, Family
from invmm_eval.models.pipelines import image_sides
from invmm_eval.recipe import LDM, STABLE_DIFFUSION, STABLE_DIFFUSION_3

PAPER_SIZE = 512
"""Pixels a side of the images for which the paper audits Stable Diffusion 3.5."""


def _of_network(pipeline: Any) -> dict[str, Any]:
    """The size of images that a network's config states."""
    network = getattr(pipeline, "transformer", None) or pipeline.unet
    return {"sides": image_sides(network, pipeline.vae_scale_factor)}


class Latent(Diffusers):
    """Unconditional latent diffusion (Rombach et al. 2022), which the paper audits."""

    family = Family("latent", LDM, ("LDMPipeline",))


class StableDiffusion(Diffusers):
    """Stable Diffusion 1 and 2 (Rombach et al. 2022), which the paper audits."""

    family = Family(
        "stable-diffusion",
        STABLE_DIFFUSION,
        ("StableDiffusionPipeline",),
        defaults=_of_network,
        parts={"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False},
    )


class StableDiffusionXL(Diffusers):
    """Stable Diffusion XL (Podell et al. 2023). One prompt is searched for both text encoders, of one vocabulary."""

    family = Family(
        "sdxl",
        replace(STABLE_DIFFUSION, name="sdxl"),
        ("StableDiffusionXLPipeline",),
        searched=("text_encoder", "text_encoder_2"),
        defaults=_of_network,
    )


def _sd3(pipeline: Any) -> Mapping[str, Any]:
    sides = tuple(min(side, PAPER_SIZE) for side in _of_network(pipeline)["sides"])
    return {"sides": sides, "max_sequence_length": 256}


class StableDiffusion3(Diffusers):
    """Stable Diffusion 3 and 3.5 (Esser et al. 2024), which the paper audits at 512 pixels.

    The tokens of the first CLIP are searched; the second and T5 read the caption, or nothing where there is none.
    """

    family = Family("sd3", STABLE_DIFFUSION_3, ("StableDiffusion3Pipeline",), defaults=_sd3)


def _flux(pipeline: Any) -> Mapping[str, Any]:
    # Of the published models schnell alone has neither guidance as an input nor a shift by the size of the image.
    is_guided = pipeline.transformer.config.guidance_embeds
    is_schnell = not is_guided and not pipeline.scheduler.config.get("use_dynamic_shifting")
    return {
        "sides": image_sides(pipeline.vae),
        "max_sequence_length": 256 if is_schnell else 512,
        "guidance_scale": 3.5 if is_guided else None,
        "few_steps": 4 if is_schnell else None,
    }


class Flux(Diffusers):
    """FLUX.1. CLIP's tokens are searched, which reach the network by its pooled output; T5 reads the caption."""

    family = Family(
        "flux", replace(STABLE_DIFFUSION_3, name="flux", guidance=(1.0,)), ("FluxPipeline",), defaults=_flux
    )


def _pixart(pipeline: Any) -> Mapping[str, Any]:
    # All places of T5 but the end mark.
    places = signature(type(pipeline).__call__).parameters["max_sequence_length"].default
    return {**_of_network(pipeline), "soft_tokens": places - 1}


class PixArt(Diffusers):
    """PixArt-alpha and PixArt-sigma (Chen et al. 2023, 2024). T5's tokens are searched, which the paper does not do."""

    family = Family(
        "pixart",
        replace(STABLE_DIFFUSION, name="pixart"),
        ("PixArtAlphaPipeline", "PixArtSigmaPipeline"),
        defaults=_pixart,
    )
