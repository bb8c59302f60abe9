"""The sentences about an audit, in words that need no knowledge of diffusion models.

They claim no more than ``docs/number.md`` does: a small value in nats predicts copies in ordinary sampling; a replica
alone does not prove memorization; the lack of a replica does not rule it out. If the prompt was searched too, the
predictions hold for that prompt.
"""

import math
from collections.abc import Iterator

from invmm_eval.reports.failures import by_reason, listed
from invmm_eval.reports.summary import NOT_PUBLISHED, Summary
from invmm_eval.search.result import Result, Status
from invmm_eval.statistics.binomial import CONFIDENCE, most, percent
from invmm_eval.statistics.bound import RATE, TELLING_NATS, least_share, least_share_moved
from invmm_eval.statistics.response import HALF, MOST, Response

LIMITS = (
    "A large or infinite value does not prove that an image was not memorized: the search may have failed within its "
    "budget, and the noise it finds is not the closest possible to the standard normal.",
    "A replica alone does not prove memorization: with enough steps, noise can be found even for pictures that the "
    "model was never trained on, above all plain ones with few strong shapes. The value separates them: compare it "
    "with the values of images known to be new, under the same recipe.",
    "The value is noisy: it is the KL at the first check that all samples pass. Compare values of the same recipe "
    "only, and repeat them over seeds.",
    "It is not a membership test: an image from the training set need not be memorized.",
    "It is a worst case: an attacker may choose the noise and, if it is searched, the prompt.",
    "It depends on the similarity and its threshold, which decide what counts as a copy.",
)
"""What the measure cannot show."""


def headline(summary: Summary) -> str:
    """The verdict in one or two sentences."""
    if not summary.images:
        return "This audit has no results yet."
    if not summary.measured:
        return (
            "The image could not be measured."
            if summary.images == 1
            else f"None of the {summary.images:,} images could be measured."
        )
    prompted = any(result.prompt is not None for result in summary.results)
    if count := len(summary.telling):
        prompt = ("with its prompt " if count == 1 else "with their prompts ") if prompted else ""
        are = "is" if count == 1 else "are"
        return (
            f"{count:,} of {_images(summary.measured)} {are} memorized: ordinary sampling {prompt}may produce copies."
        )
    if summary.replicated:
        return (
            f"{summary.replicated:,} of {_images(summary.measured)} {_were(summary.replicated)} replicated, but only "
            "from noise that the search chose. This does not show that ordinary sampling produces copies."
        )
    none = "The image was not" if summary.measured == 1 else f"None of the {summary.measured:,} images was"
    return f"{none} replicated within the budget. This does not rule out memorization."


def verdict(summary: Summary) -> Iterator[str]:
    """The facts behind the headline, one paragraph each."""
    if summary.measured:
        yield _counts(summary)
        yield population_limit(summary.replicated, summary.measured)
    if summary.replicated:
        first = summary.results[0]
        yield f"The smallest value is that of {first.name or 'an unnamed image'}. {meaning(first)}"
        if rest := sum(result.nats is not None and result.nats > TELLING_NATS for result in summary.results):
            yield (
                f"For {rest:,} of the replicated images the value is above {TELLING_NATS:g} nats in total. Noise can "
                "be chosen that produces them; how often ordinary sampling does is not known. To judge whether the "
                "model memorized them, compare their values with those of images that are known to be new, which must "
                "be clearly larger."
            )
    if summary.exhausted:
        yield "For images that were not replicated, the result describes the search, not what the model memorized."
    yield from _failures(summary)
    if summary.images and not summary.measured:
        yield "Nothing can be concluded about memorization."


def _counts(summary: Summary) -> str:
    recipe = summary.recipe
    text = f"Of {_images(summary.images)}, {summary.replicated:,} {_were(summary.replicated)} replicated"
    if summary.replicated:
        text += (
            f": the search found noise from which {_samples(recipe.check_images)} of the model reached a similarity "
            f"of {summary.threshold:g} to the image ({summary.config['similarity']['name']})"
        )
    if summary.exhausted:
        text += f". {summary.exhausted:,} {_were(summary.exhausted)} not replicated within {recipe.max_steps:,} steps"
    return text + (f". {summary.failed:,} could not be measured." if summary.failed else ".")


def _failures(summary: Summary) -> Iterator[str]:
    """Each reason of failure once, and how to see more; nothing where reasons are not published."""
    failed = [result for result in summary.results if result.error and result.error != NOT_PUBLISHED]
    yield from listed(by_reason({"name": r.name, "status": r.status, "error": r.error} for r in failed))
    if any(result.traceback for result in failed):
        yield (
            "The tracebacks of unexpected errors are in results.jsonl; with --debug the same command prints the first "
            "one of the images that fail again."
        )


def meaning(result: Result) -> str:
    """What the result of one image says, in a sentence or two."""
    if result.status is Status.FAILED:
        return f"The image could not be measured: {result.error}"
    prompt = ""
    if result.prompt is not None and result.check is not None:
        prompt = f" with the same prompt at guidance {result.check.best_scale:g}"
    if result.status is Status.EXHAUSTED:
        value = f"The image was not replicated in {result.steps:,} steps"
        if result.response:
            return f"{value}, but some samples are copies. {_by_dose(result.response, HALF, prompt)}"
        return f"{value}. This describes the search, not what the model memorized."
    value = f"Its InvMM is {result.invmm:.2g} nats per dimension"
    if result.nats is None:
        return f"{value}."
    value += f", {result.nats:,.3g} nats in total"
    if result.response:
        return f"{value}. {_by_dose(result.response, MOST, prompt)}"
    if result.nats > TELLING_NATS:
        return f"{value}: too many to predict copies in ordinary sampling."
    return (
        f"{value}. If the noise that was found produces a copy {RATE:.0%} of the time, ordinary sampling{prompt} "
        f"produces at least one copy in {one_in(least_share(result.nats))} samples."
    )


def _by_dose(response: Response, rate: float, prompt: str) -> str:
    """What the curve predicts for ordinary sampling, and what the dose at a rate guarantees without the curve."""
    share, half, dose = response.plain(), response.dose(HALF), response.dose(rate)
    if share is None:
        return (
            f"Half of the samples are copies at {half.nats:.2g} nats ({half.low:.2g} to {half.high:.2g}, "
            f"{CONFIDENCE:.0%} interval): too many to predict how often ordinary sampling produces one."
        )
    return (
        f"By its dose-response curve, ordinary sampling{prompt} produces about one copy in {one_in(share.rate)} "
        f"samples (one in {one_in(share.high)} to {one_in(share.low)}, {CONFIDENCE:.0%} interval). At "
        f"{dose.nats:.2g} nats ({dose.low:.2g} to {dose.high:.2g}) {rate:.0%} of the samples are copies, which "
        f"implies at least one copy in {one_in(least_share_moved(dose.high, rate))} ordinary samples whatever the "
        "curve."
    )


def population_limit(replicated: int, measured: int) -> str:
    """What the images that did not fail, at least one, say about the set that they were drawn from."""
    drawn = "this image was" if measured == 1 else f"these {measured:,} images were"
    return (
        f"If {drawn} drawn at random from a larger set, at most {percent(most(replicated, measured))} of that set "
        f"would be replicated with this recipe ({percent(CONFIDENCE)} confidence, exact binomial limit)."
    )


def one_in(share: float) -> str:
    """The number of samples per copy, for a share of copies: two significant digits, rounded up."""
    if share < 1e-12:
        return "more than a trillion"
    count = 1 / share
    place = 10.0 ** (math.floor(math.log10(count)) - 1)
    count = math.ceil(count / place) * place
    for size, word in ((1e9, " billion"), (1e6, " million")):
        if count >= size:
            return f"{count / size:.3g}{word}"
    return f"{count:.2g}" if count < 100 else f"{count:,.0f}"


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count:,} images"


def _samples(count: int) -> str:
    return "1 sample" if count == 1 else f"all {count} samples"


def _were(count: int) -> str:
    return "was" if count == 1 else "were"
