"""A plugin of invmm_eval: the backbone ``sd3`` for Stable Diffusion 3 and 3.5."""

from collections.abc import Mapping

from invmm_eval.plugin import BackboneEntry, hookimpl, lazy

invmm_eval_api = 1


@hookimpl
def register_backbones() -> Mapping[str, BackboneEntry]:
    """Serves diffusers' StableDiffusion3Pipeline."""
    return {"sd3": BackboneEntry(lazy("invmm_sd3.backbone:SD3"), ("StableDiffusion3Pipeline",))}
