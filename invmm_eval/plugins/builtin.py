"""The parts that come with invmm_eval, registered by the same hooks as those of plugins."""

from collections.abc import Mapping

from invmm_eval.plugins.hooks import (
    ANY_PIPELINE,
    BackboneEntry,
    DetectorMaker,
    EstimatorMaker,
    NoiseFamilyMaker,
    SimilarityMaker,
    hookimpl,
    lazy,
)

COMMANDS = (
    "run",
    "audit",
    "screen",
    "calibrate",
    "status",
    "merge",
    "verify",
    "demo",
    "check",
    "compare",
    "report",
    "plugins",
    "new-plugin",
    "register",
    "card",
    "push",
)
"""Names of commands that no plugin may take."""


@hookimpl
def register_backbones() -> Mapping[str, BackboneEntry]:
    """Pixel models, unconditional latent diffusion, families with published settings, and any other pipeline."""
    families = "invmm_eval.models.generic.families"
    return {
        "ddpm": BackboneEntry(lazy("invmm_eval.models.ddpm:DDPM"), ("DDPMPipeline", "DDIMPipeline")),
        "latent": BackboneEntry(lazy(f"{families}:Latent"), ("LDMPipeline",)),
        "stable-diffusion": BackboneEntry(lazy(f"{families}:StableDiffusion"), ("StableDiffusionPipeline",)),
        "sdxl": BackboneEntry(lazy(f"{families}:StableDiffusionXL"), ("StableDiffusionXLPipeline",)),
        "sd3": BackboneEntry(lazy(f"{families}:StableDiffusion3"), ("StableDiffusion3Pipeline",)),
        "flux": BackboneEntry(lazy(f"{families}:Flux"), ("FluxPipeline",)),
        "pixart": BackboneEntry(lazy(f"{families}:PixArt"), ("PixArtAlphaPipeline", "PixArtSigmaPipeline")),
        "diffusers": BackboneEntry(lazy("invmm_eval.models.generic.backbone:Diffusers"), (ANY_PIPELINE,)),
    }


@hookimpl
def register_similarities() -> Mapping[str, SimilarityMaker]:
    """The paper's similarity, and two that need no weights."""
    return {
        "sscd": lazy("invmm_eval.similarity.sscd:SSCD"),
        "pixel-cosine": lazy("invmm_eval.similarity.pixel_cosine:PixelCosine"),
        "ssim": lazy("invmm_eval.similarity.ssim:SSIM"),
    }


@hookimpl
def register_noise_families() -> Mapping[str, NoiseFamilyMaker]:
    """The paper's noise family, and one with fewer parameters."""
    return {
        "diagonal-gaussian": lazy("invmm_eval.noise.gaussian:diagonal"),
        "isotropic-gaussian": lazy("invmm_eval.noise.gaussian:isotropic"),
    }


@hookimpl
def register_estimators() -> Mapping[str, EstimatorMaker]:
    """Those that the settings ``responses`` and ``confirm`` of a recipe use, and the share of plain samples."""
    return {
        "dose-response": lazy("invmm_eval.search.estimators:DoseResponse"),
        "confirmation": lazy("invmm_eval.search.estimators:Confirmation"),
        "plain-share": lazy("invmm_eval.search.plain_share:PlainShare"),
    }


@hookimpl
def register_detectors() -> Mapping[str, DetectorMaker]:
    """Errors of the network's estimates for the image, and the effect of its caption."""
    return {
        "denoising-loss": lazy("invmm_eval.search.screening.denoising_loss:DenoisingLoss"),
        "secmi": lazy("invmm_eval.search.screening.step_error:StepError"),
        "pia": lazy("invmm_eval.search.screening.proximal:Proximal"),
        "mirrored-loss": lazy("invmm_eval.search.screening.mirrored_loss:MirroredLoss"),
        "caption-magnitude": lazy("invmm_eval.search.screening.caption_magnitude:CaptionMagnitude"),
        "sharpness": lazy("invmm_eval.search.screening.sharpness:Sharpness"),
    }
