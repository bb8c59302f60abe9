"""A plugin of invmm_eval: the backbone ``pixart`` for PixArt-alpha and PixArt-sigma."""

from collections.abc import Mapping

from invmm_eval.plugin import BackboneEntry, hookimpl, lazy

invmm_eval_api = 1


@hookimpl
def register_backbones() -> Mapping[str, BackboneEntry]:
    """Serves diffusers' PixArtAlphaPipeline and PixArtSigmaPipeline."""
    served = ("PixArtAlphaPipeline", "PixArtSigmaPipeline")
    return {"pixart": BackboneEntry(lazy("invmm_pixart.backbone:PixArt"), served)}
