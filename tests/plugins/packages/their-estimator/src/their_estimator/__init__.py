"""An estimator of a third party: the mean similarity of a few more samples."""

from collections.abc import Mapping
from typing import Any

from invmm_eval.plugin import EstimatorMaker, Found, hookimpl


class MeanSimilarity:
    """The mean similarity of four samples from q."""

    name = "mean-similarity"
    fields: Mapping[str, str] = {"mean": "mean similarity of four samples", "drawn": "number of samples"}

    async def __call__(self, found: Found) -> Mapping[str, Any]:
        """Draw the samples."""
        similarities = (await found.sample(4)).similarities
        return {"mean": sum(similarities) / len(similarities), "drawn": len(similarities)}


@hookimpl
def register_estimators() -> Mapping[str, EstimatorMaker]:
    """The one estimator."""
    return {"mean-similarity": MeanSimilarity}
