"""A plugin of invmm_eval: the similarity ``dino``, by features of DINOv2 or CLIP."""

from collections.abc import Mapping

from invmm_eval.plugin import SimilarityMaker, hookimpl, lazy

invmm_eval_api = 1


@hookimpl
def register_similarities() -> Mapping[str, SimilarityMaker]:
    """The one similarity."""
    return {"dino": lazy("invmm_dino.similarity:DINO")}
