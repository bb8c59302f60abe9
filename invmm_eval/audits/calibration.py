"""The similarity threshold from held-out images: the model cannot know them, so what is replicated of them is false.

Their searches take all steps, whatever they reach. A search does not depend on the threshold beta until it ends, so an
image would have been replicated under beta where its best score at any check is at least beta. Of n images, k may be:
the most with

    (k + 1) / (n + 1) <= rate.

The threshold lies just above the other n - k best scores. Of more images of the same kind, the share that reach it is
then distributed as Beta(k + 1, n - k), or lies below: its mean is at most ``rate``, and its upper limit is that of
:mod:`invmm_eval.statistics.binomial` (Wilks 1941, "Determination of sample sizes for setting tolerance limits").

Where searches get nowhere near a held-out image, their scores say little. So the threshold is also above the
similarities of different held-out images to each other, but for a share of ``rate`` of the pairs.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from invmm_eval.audits.auditing import OnStep, Plan
from invmm_eval.audits.images import Source, prepare
from invmm_eval.errors import InvMMError
from invmm_eval.search.result import Result, Status
from invmm_eval.statistics.binomial import most

FILE = "calibration.json"
"""What a calibration is called in the folder of its audit."""
RATE = 0.05
"""The false-replica rate that is asked for, unless another is."""


@dataclass(frozen=True)
class Calibration:
    """A threshold, and what it rests upon.

    Attributes:
        threshold: beta.
        rate: The false-replica rate that was asked for.
        scores: The best score of each held-out image that did not fail, the highest first.
        between: The threshold that the similarities of different held-out images alone ask for; None of one image.
        config: What the scores were measured with.
    """

    threshold: float
    rate: float
    scores: tuple[float, ...]
    between: float | None
    config: Mapping[str, Any]

    @property
    def images(self) -> int:
        """How many held-out images were measured."""
        return len(self.scores)

    @property
    def reached(self) -> int:
        """How many held-out images reach the threshold."""
        return sum(score >= self.threshold for score in self.scores)

    @property
    def limit(self) -> float:
        """The share of more images like them that reach it, at most, at 95 % confidence."""
        return most(allowed(self.rate, self.images), self.images)

    def applied(self, plan: Plan) -> Plan:
        """The plan with this threshold, and with where it is from in its config.

        Raises:
            InvMMError: The plan has a threshold already, or differs in what decides the scores.
        """
        if plan.recipe.threshold is not None:
            raise InvMMError("The calibration sets the threshold; leave it out of the settings.")
        ours, theirs = _basis(self.config), _basis(plan.config)
        if differing := sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)):
            raise InvMMError(
                f"The calibration differs from this audit in {', '.join(differing)}; calibrate anew with what the "
                "audit is to take."
            )
        recipe = plan.recipe.changed(threshold=self.threshold)
        config = {**plan.config, "recipe": asdict(recipe), "calibration": self._told()}
        return replace(plan, recipe=recipe, config=config)

    def _told(self) -> dict[str, float]:
        return {"rate": self.rate, "images": self.images, "reached": self.reached, "limit": self.limit}

    def save(self, path: str | Path) -> None:
        """Write it as JSON.

        Raises:
            InvMMError: It cannot be written.
        """
        try:
            Path(path).write_text(json.dumps(asdict(self) | self._told(), indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise InvMMError(f"The calibration cannot be written to {path}: {error.strerror or error}.") from error

    @classmethod
    def load(cls, path: str | Path) -> "Calibration":
        """Read what :meth:`save` wrote.

        Raises:
            InvMMError: The file is missing, or no calibration.
        """
        try:
            told = json.loads(Path(path).read_text(encoding="utf-8"))
            return cls(**{field.name: told[field.name] for field in fields(cls)} | {"scores": tuple(told["scores"])})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InvMMError(f"{path} is no calibration that can be read; invmm-eval calibrate writes one.") from error


def calibrate(
    plan: Plan,
    held_out: Sequence[Source],
    *,
    rate: float = RATE,
    out: str | Path | None = None,
    batch_size: int = 8,
    micro_batch: int | None = None,
    on_step: OnStep | None = None,
    over: Callable[[Iterable[Result]], Iterable[Result]] = iter,
) -> Calibration:
    """Find the threshold at which a model replicates at most a share of images that it never saw.

    Args:
        plan: What an audit is to take, but for the threshold.
        held_out: The images; those that fail are not counted.
        rate: The share, in (0, 1): of n images it can be as low as 1 / (n + 1).
        out: A folder to keep the searches in, to go on from, and to write ``calibration.json`` to.
        batch_size: Images searched together.
        micro_batch: At most so many rows go through the network at once; None takes one image's draws.
        on_step: Called after each step with the searches under way.
        over: Passes the results on as they come, as a progress bar does.

    Raises:
        InvMMError: The images are too few for the rate, or the folder cannot be used.
    """
    allowed(rate, len(held_out))
    recipe = plan.recipe.changed(stop=False)
    whole = replace(plan, recipe=recipe, config={**plan.config, "recipe": asdict(recipe)})
    measured = whole.run(held_out, out=out, batch_size=batch_size, micro_batch=micro_batch, on_step=on_step)
    best = {result.index: _best(result) for result in over(measured)}
    images = [index for index, score in best.items() if math.isfinite(score)]
    scores = tuple(sorted((best[index] for index in images), reverse=True))
    threshold = _above(scores, allowed(rate, len(scores)))
    alike = between(plan, [held_out[index] for index in sorted(images)])
    least = _above(alike, math.floor(rate * len(alike))) if alike else None
    found = Calibration(threshold if least is None else max(least, threshold), rate, scores, least, whole.config)
    if out is not None:
        found.save(Path(out) / FILE)
    return found


def allowed(rate: float, images: int) -> int:
    """How many of so many held-out images may reach the threshold.

    Raises:
        InvMMError: Not even none gives the rate.
    """
    if not 0 < rate < 1:
        raise InvMMError(f"The rate is {rate}; it must be between 0 and 1.")
    count = math.floor(rate * (images + 1)) - 1
    if count < 0:
        raise InvMMError(
            f"With {images} held-out images no rate below {1 / (images + 1):.2g} can be promised; give "
            f"{math.ceil(1 / rate) - 1} or more, or ask for a higher --rate."
        )
    return count


def between(plan: Plan, images: Sequence[Source]) -> list[float]:
    """The similarities of different images to each other."""
    features = []
    for source in images:
        pixels = prepare(source.value, plan.backbone.image_shape).to(plan.backbone.device)[None].float() / 255
        features.append(plan.similarity.embed(pixels))
    return [plan.similarity.compare(a, b).item() for a, b in combinations(features, 2)]


def _best(result: Result) -> float:
    """At any check; -inf where there is none, or where the search failed."""
    scores = () if result.status is Status.FAILED else (point.score for point in result.trace)
    return max(filter(math.isfinite, scores), default=-math.inf)


def _above(values: Iterable[float], count: int) -> float:
    """The least in thousandths that at most ``count`` of the values reach."""
    return math.floor(1000 * sorted(values, reverse=True)[count] + 1) / 1000


def _basis(config: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the scores, as JSON has it."""
    parts = {key: config[key] for key in ("weights", "backbone", "similarity", "noise")}
    recipe = {key: value for key, value in config["recipe"].items() if key not in ("name", "threshold", "stop")}
    return dict(json.loads(json.dumps({**parts, **recipe})))
