"""The content of an audit, and the number of its images of each verdict."""

from collections import Counter
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from PIL.Image import Image

from invmm_eval.audits.folder import Record
from invmm_eval.audits.whole.found import Design, WholeSet
from invmm_eval.recipe import Recipe
from invmm_eval.reports.ranked import Ranked
from invmm_eval.search.result import Result
from invmm_eval.search.sheet import opened
from invmm_eval.search.status import Verdict

NOT_PUBLISHED = "The reason is not published."
"""What stands for the errors of images whose names are private."""


@dataclass(frozen=True)
class Summary:
    """One audit, counted.

    Attributes:
        record: The content of the folder.
        results: One result per image in the order of :func:`~invmm_eval.search.result.rank`: most memorized first.
        written: When the last result was written; None if there is none yet.
    """

    record: Record
    results: Ranked
    written: datetime | None

    @property
    def config(self) -> Mapping[str, Any]:
        """Everything that determines the results."""
        return self.record.config

    @property
    def model(self) -> str:
        """The model that was measured, with the files of its LoRAs and embeddings."""
        return self._with_added(self.config["model"])

    @property
    def short_model(self) -> str:
        """The same without the folder or organisation and the revision of the model."""
        return self._with_added(Path(self.config["model"].partition("@")[0]).name)

    def _with_added(self, model: str) -> str:
        added = [part["file"] for kind in ("loras", "embeddings") for part in self.config.get(kind, ())]
        return f"{model} with {', '.join(added)}" if added else model

    @property
    def images(self) -> int:
        """Number of images that have a result."""
        return len(self.results)

    @property
    def total(self) -> int:
        """What every count is out of: the images that have a result, or all of the whole set they were chosen from."""
        return self.whole.design.pictures if self.whole else self.images

    @cached_property
    def whole(self) -> WholeSet | None:
        """What the audit says about the whole set that it chose its images from; None if it chose none."""
        design = Design.load(self.record.folder)
        if design is None or not design.end:
            return None
        by_index = {result.index: result for result in self.results}
        return WholeSet(design, by_index) if by_index.keys() == {*design.suspects, *design.control} else None

    @property
    def is_part(self) -> bool:
        """Whether its images are only some that an audit of a whole set chose, which is not complete."""
        return self.whole is None and "control" in self.record.request

    @property
    def waiting(self) -> int:
        """Number of requested images that have no result yet."""
        return self.record.progress.waiting

    @cached_property
    def counts(self) -> Mapping[Verdict, int]:
        """Number of images of each verdict."""
        counts = Counter(self.results.keys[:, 0].tolist())
        return {verdict: counts[place] for place, verdict in enumerate(Verdict)}

    @property
    def measured(self) -> int:
        """Number of images that did not fail."""
        return self.images - self.counts[Verdict.FAILED]

    def of(self, verdict: Verdict) -> Ranked:
        """The results of a verdict."""
        before = sum(self.counts[worse] for worse in list(Verdict)[: list(Verdict).index(verdict)])
        return self.results[before : before + self.counts[verdict]]

    @cached_property
    def recipe(self) -> Recipe:
        """The settings of the search."""
        return Recipe.from_record(self.config["recipe"])

    @property
    def threshold(self) -> float:
        """The similarity from which on a sample counts as a copy."""
        own = self.recipe.threshold
        return float(self.config["similarity"]["threshold"] if own is None else own)

    @property
    def image_shape(self) -> Sequence[int]:
        """Channels, height and width of a picture."""
        shape: Sequence[int] = self.config["backbone"]["image_shape"]
        return shape

    def describe(self, estimator: str) -> Mapping[str, str]:
        """Descriptions of the values of one of the recipe's estimators."""
        descriptions: Mapping[str, Mapping[str, str]] = self.config.get("estimators", {})
        return descriptions.get(estimator, {})

    def picture(self, result: Result) -> Path:
        """The picture of an image and its samples, one row per guidance scale; failed images have none."""
        return self.record.picture({"digest": result.digest, "caption": result.caption})

    def sheet(self, result: Result) -> Image | None:
        """What is in :meth:`picture`; None if the folder has none, or not the similarities of its samples.

        Raises:
            InvMMError: The file cannot be read, or is damaged.
        """
        known = result.check and result.check.similarities  # else its tensors were removed
        return opened(self.picture(result)) if known else None

    def public(self, *, names: bool = False) -> Self:
        """A copy that can be published, without rows: images named by their digest, the model's folder without its
        path.

        Args:
            names: Whether images keep their names, prompts and errors.
        """
        results = self.results
        if not names:
            results = results.changed(_without_names)
        return replace(self, record=replace(self.record.public(), rows=()), results=results)


def _without_names(result: Result) -> Result:
    nameless = copy(result)  # reads nothing, which replace would
    nameless.__dict__.update(
        name=result.digest[:16] or f"image {result.index}",
        prompt="" if result.prompted else None,  # what is said depends on whether there was one,
        captioned=result.captioned,  # and on whether it was the caption
        error=result.error and NOT_PUBLISHED,
        traceback=None,
    )
    return nameless
