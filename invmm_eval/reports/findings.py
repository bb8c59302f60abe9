"""What an audit found, in numbers and in words that need no knowledge of diffusion models.

All faces say the same because they read this. The words claim no more than ``docs/number.md`` does.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from invmm_eval.audits.folder import Record, read
from invmm_eval.audits.request import command
from invmm_eval.audits.summary import summarize
from invmm_eval.errors import InvMMError
from invmm_eval.recipe import Recipe
from invmm_eval.search.fields import columns as columns_of
from invmm_eval.search.result import Result, Status, rank
from invmm_eval.statistics.binomial import CONFIDENCE, most, percent
from invmm_eval.statistics.bound import RATE, TELLING_NATS, least_share, least_share_moved
from invmm_eval.statistics.response import HALF, MOST, Response

LIMITS = (
    "A large or infinite value does not prove that an image was not memorized: the search may have failed within its "
    "budget, and it spends more than the least that would do.",
    "A replica alone does not prove memorization: with enough steps even pictures that the model never saw, plain and "
    "bold ones above all, can be forced upon the noise. What separates is the value: compare it with that of images "
    "known to be new, under the same recipe.",
    "The value is noisy, for it is the KL at the first check that all samples pass. Compare values of one recipe only, "
    "and repeat them over seeds.",
    "It is not a membership test: an image that the model merely saw in training is not memorized.",
    "It is a worst case: whoever attacks the model chooses the noise and, where it is searched, the prompt.",
    "It is as good as the similarity and its threshold, which decide what counts as a copy.",
)
"""What the measure cannot tell."""


@dataclass(frozen=True)
class Findings:
    """One audit, judged.

    Attributes:
        record: What the folder holds.
        results: One an image, in the order of :func:`~invmm_eval.search.result.rank`: the most memorized first.
        written: When the last result was written, None where there is none yet.
        replicated: How many images were replicated.
        exhausted: How many were not within the budget.
        failed: How many could not be measured.
        fraction: The replicated among those that did not fail; None where there are none.
        median: Of the InvMM of those that did not fail: infinite unless more than half were replicated.
        least: The smallest InvMM, infinite where no image was replicated; None where all failed.
    """

    record: Record
    results: tuple[Result, ...]
    written: datetime | None
    replicated: int
    exhausted: int
    failed: int
    fraction: float | None
    median: float | None
    least: float | None

    @property
    def config(self) -> Mapping[str, Any]:
        """All that decided the results."""
        return self.record.config

    @property
    def images(self) -> int:
        """How many images there are."""
        return len(self.results)

    @property
    def waiting(self) -> int:
        """How many images were asked for and have no result yet."""
        return self.record.progress.waiting

    @property
    def measured(self) -> int:
        """How many did not fail."""
        return self.images - self.failed

    @property
    def telling(self) -> tuple[Result, ...]:
        """Those at no more than ``TELLING_NATS``: of them the bound promises copies in ordinary sampling."""
        return tuple(result for result in self.results if result.nats is not None and result.nats <= TELLING_NATS)

    @property
    def recipe(self) -> Recipe:
        """The settings of the search."""
        return Recipe.from_record(self.config["recipe"])

    @property
    def threshold(self) -> float:
        """The similarity from which on a sample counted as a copy."""
        own = self.recipe.threshold
        return float(self.config["similarity"]["threshold"] if own is None else own)

    def picture(self, result: Result) -> Path:
        """The picture of an image and its samples, one row a guidance scale; failed images have none."""
        return self.record.picture(result.record())

    def public(self, *, names: bool = False) -> "Findings":
        """The same as strangers may see it: images by the start of their digest, a model's folder without its path.

        Args:
            names: Whether images keep their names, prompts and errors.
        """
        results = self.results
        if not names:
            results = tuple(
                replace(
                    result,
                    name=result.digest[:16] or f"image {result.index}",
                    prompt=None if result.prompt is None else "",  # that there was one qualifies the verdict
                    error=result.error and "The reason is not published.",
                )
                for result in results
            )
        rows = tuple(result.record() for result in results)
        return replace(self, record=replace(self.record.public(), rows=rows), results=results)

    @property
    def headline(self) -> str:
        """The verdict in one sentence."""
        if not self.images:
            return "This audit holds no result yet."
        if not self.measured:
            return f"No image could be measured: the searches of all {self.failed:,} failed."
        asked = "with its prompt, " if any(result.prompt is not None for result in self.results) else ""
        if self.telling:
            are = "is" if len(self.telling) == 1 else "are"
            return (
                f"{len(self.telling):,} of {_images(self.measured)} {are} memorized: {asked}ordinary sampling may give "
                "copies."
            )
        if self.replicated:
            return (
                f"{self.replicated:,} of {_images(self.measured)} {_were(self.replicated)} replicated, from chosen "
                f"noise alone: that {asked}ordinary sampling may give copies is not shown."
            )
        return f"No image of {self.measured:,} was replicated within the budget. That is no acquittal."

    @property
    def verdict(self) -> tuple[str, ...]:
        """What the headline rests upon, in a few sentences each."""
        if not self.measured:
            return ("Nothing is said about memorization.",) if self.images else ()
        return tuple(self._paragraphs())

    def _paragraphs(self) -> Iterator[str]:
        recipe = self.recipe
        counts = f"Of {_images(self.images)}, {self.replicated:,} {_were(self.replicated)} replicated"
        if self.replicated:
            counts += (
                f": noise was found from which {_samples(recipe.check_images)} of the model reached a similarity of "
                f"{self.threshold:g} to the image ({self.config['similarity']['name']})"
            )
        counts += f"; {self.exhausted:,} {_were(self.exhausted)} not within {recipe.max_steps:,} steps"
        yield counts + (f"; {self.failed:,} could not be measured." if self.failed else ".")
        yield whole(self.replicated, self.measured)
        if self.replicated:
            first = self.results[0]
            yield f"The smallest value is that of {first.name or 'an unnamed image'}. {meaning(first)}"
            if rest := sum(result.nats is not None and result.nats > TELLING_NATS for result in self.results):
                yield (
                    f"For {rest:,} of the replicated images the value is above {TELLING_NATS:g} nats in all. Whoever "
                    "chooses the noise gets the image; how often ordinary sampling gives it is left open. Whether "
                    "the model memorized it, only a comparison with images known to be new can tell: their values "
                    "must be clearly larger."
                )
        if self.exhausted:
            yield "Of images that were not replicated it is known what the search did, not what the model holds."

    @property
    def settings(self) -> dict[str, str]:
        """What was audited and how: names of settings and their values in words, for people."""
        config, recipe = self.config, self.recipe
        similarity, noise, backbone = (dict(config[part]) for part in ("similarity", "noise", "backbone"))
        shape = "x".join(map(str, backbone.pop("image_shape")))
        return {
            "Model": config["model"],
            "Weights": config["weights"] or "not known",
            "Backbone": _told(backbone),
            "Images": f"{shape} (channels, height, width)",
            "Noise family": _told(noise),
            "Similarity": _told({**similarity, "threshold": self.threshold}),
            **self._calibration(),
            "Recipe": recipe.name,
            "Steps": f"at most {recipe.max_steps:,}, of {recipe.draws} draws each; learning rate "
            f"{recipe.learning_rate:g}; a check every {recipe.check_every}",
            "Check": f"{recipe.check_images} samples a guidance scale, which must all pass; {recipe.sampler_steps} "
            f"steps of the sampler {recipe.sampler}; guidance " + ", ".join(f"{scale:g}" for scale in recipe.guidance),
            **self._doses(),
            "Seed": str(config["seed"]),
            "Versions": ", ".join(f"{name} {version}" for name, version in config["versions"].items()),
        }

    def _doses(self) -> dict[str, str]:
        """What a search by dose adds to the settings."""
        recipe = self.recipe
        if not recipe.first_dose:
            return {}
        curve = (
            f"; {recipe.responses} samples for the curve, its value at {recipe.rate:.0%}" if recipe.responses else ""
        )
        return {"Doses": f"from {recipe.first_dose:g} nats, twice as many after each check that failed{curve}"}

    def _calibration(self) -> dict[str, str]:
        """Where the threshold is from, if that is known."""
        if "calibration" not in self.config:
            return {}
        told = self.config["calibration"]
        return {
            "Threshold": f"set for a rate of {told['rate']:.2g} of false replicas on held-out images: "
            f"{told['reached']:,} of {told['images']:,} reach it, and of more like them at most "
            f"{percent(told['limit'])} do, at {percent(CONFIDENCE)} confidence"
        }

    @property
    def command(self) -> str:
        """The command that reproduces the audit, one option per line."""
        return command(self.record.request)

    def table(self) -> pa.Table:
        """One row per image in the order of :attr:`results`, with the columns of the face ``dataset``."""
        columns = columns_of("dataset", self.results)
        return pa.table(
            {column.name: pa.array(map(finite, map(column.value, self.results)), column.type) for column in columns}
        )


def find(folder: str | Path) -> Findings:
    """What the audit in a folder found, as far as it got.

    Raises:
        InvMMError: There is no audit in the folder, or it is damaged.
    """
    record = read(folder)
    try:
        results = sorted(map(Result.from_record, record.rows), key=rank)
    except (KeyError, TypeError, ValueError) as error:
        raise InvMMError(
            f"{record.folder / 'results.jsonl'} is not of this version of invmm-eval ({error}); run the audit anew."
        ) from error
    summary = summarize(results)
    replicated, failed = int(summary["replicated"] or 0), int(summary["failed"] or 0)
    lines = record.folder / "results.jsonl"
    return Findings(
        record=record,
        results=tuple(results),
        written=datetime.fromtimestamp(lines.stat().st_mtime, UTC) if results else None,
        replicated=replicated,
        exhausted=len(results) - replicated - failed,
        failed=failed,
        fraction=summary["replicated_fraction"],
        median=summary["median_invmm"],
        least=summary["smallest_invmm"],
    )


def meaning(result: Result) -> str:
    """What one image's result says, in a sentence or two."""
    if result.status is Status.FAILED:
        return f"It could not be measured: {result.error}"
    asked = ""
    if result.prompt is not None and result.check is not None:
        asked = f", with the same prompt at guidance {result.check.best_scale:g},"
    if result.status is Status.EXHAUSTED:
        value = f"It was not replicated in {result.steps:,} steps"
        if result.response:
            return f"{value}, but some samples are copies. {_by_dose(result.response, HALF, asked)}"
        return f"{value}: that says what the search did, not what the model holds."
    value = f"Its InvMM is {result.invmm:.2g} nats per dimension"
    if result.nats is None:
        return f"{value}."
    value += f", {result.nats:,.3g} nats in all"
    if result.response:
        return f"{value}. {_by_dose(result.response, MOST, asked)}"
    if result.nats > TELLING_NATS:
        return f"{value}: too many to promise anything of ordinary sampling."
    return (
        f"{value}. If the noise that was found gives a copy {RATE:.0%} of the time, ordinary sampling{asked} gives at "
        f"least one in {one_in(least_share(result.nats))} samples."
    )


def _by_dose(response: Response, rate: float, asked: str) -> str:
    """What a curve expects of ordinary sampling, and what its dose at a rate promises without it."""
    share, half, told = response.plain(), response.dose(HALF), response.dose(rate)
    if share is None:
        return (
            f"Half of the samples are copies at {half.nats:.2g} nats ({half.low:.2g} to {half.high:.2g}, at "
            f"{CONFIDENCE:.0%} confidence): too many to tell how often ordinary sampling gives one."
        )
    return (
        f"By its dose-response curve ordinary sampling{asked} gives about one copy in {one_in(share.rate)} samples "
        f"(one in {one_in(share.high)} to {one_in(share.low)}, at {CONFIDENCE:.0%} confidence), and at least one in "
        f"{one_in(least_share_moved(told.high, rate))} by any curve, since at {told.nats:.2g} nats "
        f"({told.low:.2g} to {told.high:.2g}) {rate:.0%} of them are copies."
    )


def whole(replicated: int, measured: int) -> str:
    """What so many of at least one image that did not fail say of the set that they were drawn from."""
    drawn = "this image was" if measured == 1 else f"these {measured:,} images were"
    return (
        f"If {drawn} drawn at random from a larger set, at most {percent(most(replicated, measured))} of that set "
        f"would be replicated within this recipe's budget, at {percent(CONFIDENCE)} confidence (exact binomial)."
    )


def one_in(share: float) -> str:
    """How many samples hold one copy, where that share are copies: two figures, rounded up, in words if many."""
    if share < 1e-12:
        return "more than a million million"
    count = 1 / share
    place = 10.0 ** (math.floor(math.log10(count)) - 1)
    count = math.ceil(count / place) * place
    for size, word in ((1e9, " thousand million"), (1e6, " million")):
        if count >= size:
            return f"{count / size:.3g}{word}"
    return f"{count:.2g}" if count < 100 else f"{count:,.0f}"


def finite(value: Any) -> Any:
    """The value; None if it is infinite or not a number, as no file holds these."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _told(settings: Mapping[str, Any]) -> str:
    name = settings.get("name", "")
    rest = ", ".join(f"{key} {value}" for key, value in settings.items() if key != "name" and value is not None)
    return f"{name} ({rest})" if name and rest else name or rest


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count:,} images"


def _samples(count: int) -> str:
    return "1 sample" if count == 1 else f"all {count} samples"


def _were(count: int) -> str:
    return "was" if count == 1 else "were"
