"""A plugin of invmm_eval: the backbone ``flux`` for FLUX.1."""

from collections.abc import Mapping

from invmm_eval.plugin import BackboneEntry, hookimpl, lazy

invmm_eval_api = 1


@hookimpl
def register_backbones() -> Mapping[str, BackboneEntry]:
    """Serves diffusers' FluxPipeline."""
    return {"flux": BackboneEntry(lazy("invmm_flux.backbone:Flux"), ("FluxPipeline",))}
