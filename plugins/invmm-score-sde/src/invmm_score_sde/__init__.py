"""A plugin of invmm_eval: the backbone ``score-sde-ve`` for variance exploding score models."""

from collections.abc import Mapping

from invmm_eval.plugin import BackboneEntry, hookimpl, lazy

invmm_eval_api = 1


@hookimpl
def register_backbones() -> Mapping[str, BackboneEntry]:
    """Serves diffusers' ScoreSdeVePipeline."""
    return {"score-sde-ve": BackboneEntry(lazy("invmm_score_sde.backbone:ScoreSDE"), ("ScoreSdeVePipeline",))}
