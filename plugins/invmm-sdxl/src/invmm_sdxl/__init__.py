"""A plugin of invmm_eval: the backbone ``sdxl`` for Stable Diffusion XL."""

from collections.abc import Mapping

from invmm_eval.plugin import BackboneEntry, hookimpl, lazy

invmm_eval_api = 1


@hookimpl
def register_backbones() -> Mapping[str, BackboneEntry]:
    """Serves diffusers' StableDiffusionXLPipeline."""
    return {"sdxl": BackboneEntry(lazy("invmm_sdxl.backbone:StableDiffusionXL"), ("StableDiffusionXLPipeline",))}
