"""The sentences about an audit, in words that need no knowledge of diffusion models.

They claim no more than ``docs/number.md`` does: the verdict follows the share of plain samples that are copies where it
was estimated; a replica from chosen noise alone does not prove memorization; the lack of a replica does not rule it
out. If the prompt was searched too, what is said of plain samples holds for that prompt.
"""

import math
from collections.abc import Iterator, Mapping

from invmm_eval.audits.summary import NO_SHARE, share_is_known
from invmm_eval.recipe import Recipe
from invmm_eval.reports.failures import by_reason, listed
from invmm_eval.reports.numbers import are, images
from invmm_eval.reports.summary import NOT_PUBLISHED, Summary
from invmm_eval.reports.whole import sentences
from invmm_eval.search.fields import number
from invmm_eval.search.result import Result, Status
from invmm_eval.search.sentence import one_in, sentence
from invmm_eval.search.status import MEMORIZED, Verdict

_LIMITS = (
    "That no copy was found does not prove that an image was not memorized: the search may have failed within its "
    "budget.",
    "A copy from chosen noise alone does not prove memorization: with enough nats, noise can be found even for "
    "pictures that the model was never trained on, above all plain ones with few strong shapes.",
    "It is not a membership test: an image from the training set need not be memorized.",
    "It depends on the similarity and its threshold, which decide what counts as a copy.",
)
_NOISY = (
    "The InvMM of this recipe is noisy: it is the KL at the first check that all samples pass. Compare values of the "
    "same recipe only, and repeat them over seeds."
)
_ALONG = (
    "The share is estimated along one direction of the noise. Copies whose noise lies elsewhere are missed, so that it "
    "is a lower limit unless plain samples were counted too."
)
_PROMPTED = (
    "The prompt was searched or given: plain sampling with other prompts may give copies more or less often, and an "
    "attacker may choose the prompt."
)


def limits(recipe: Recipe) -> Iterator[str]:
    """What the measure cannot show with a recipe."""
    yield from _LIMITS
    yield _NOISY if recipe.optimizer == "adam" else _ALONG
    if any(scale != 1 for scale in recipe.guidance):
        yield _PROMPTED


def headline(summary: Summary) -> str:
    """The verdict in one or two sentences; every count is out of all images."""
    if not summary.images:
        return "This audit has no results yet."
    alone = summary.images == 1
    if not summary.measured:
        return "The image could not be measured." if alone else f"None of the {summary.images:,} images was measured."
    of = f"of {images(summary.images)}"
    if memorized := summary.of(Verdict.MEMORIZED):
        prompt = " with its prompt" if any(result.prompt is not None for result in memorized) else ""
        return (
            f"{len(memorized):,} {of} {are(len(memorized))} memorized: plain sampling{prompt} gives copies, "
            f"{one_in(MEMORIZED)} samples or more often."
        )
    if replicable := summary.of(Verdict.REPLICABLE):
        return (
            f"{len(replicable):,} {of} {are(len(replicable))} replicable from noise that the search chose. This does "
            "not show that plain sampling produces copies."
        )
    none = "The image was not" if alone else f"None of the {summary.images:,} images was"
    return f"{none} replicated within the budget. This does not rule out memorization."


def counted(counts: Mapping[Verdict, int]) -> str:
    """The number of images of each verdict in one line, such as ``Of 7 images 1 is memorized, ...``."""
    parts = (f"{count:,} {verdict}" for verdict, count in counts.items())
    return f"Of {images(sum(counts.values()))}: {', '.join(parts)}."


def paragraphs(summary: Summary) -> Iterator[str]:
    """The facts behind the headline, one paragraph each."""
    if summary.measured:
        first = summary.results[0]
        if first.verdict in (Verdict.MEMORIZED, Verdict.REPLICABLE):
            yield f"Most memorized is {first.name or 'an unnamed image'}: {sentence(first)}."
        if not share_is_known(summary.results):
            yield NO_SHARE
        if summary.of(Verdict.REPLICABLE):
            yield (
                f"Replicable means that {Verdict.REPLICABLE.meaning}. To judge whether the model memorized such an "
                "image, compare its nats with those of images that are known to be new, which must be clearly larger."
            )
        if summary.of(Verdict.NOT_REPLICATED):
            yield "For images that were not replicated, the result describes the search, not what the model memorized."
        if summary.whole:
            yield from sentences(summary.whole)
    yield from _failures(summary)
    if summary.images and not summary.measured:
        yield "Nothing can be concluded about memorization."


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
    """What the result of one image says: the sentence about plain sampling, then what the noise supplied."""
    text = f"{sentence(result)}."
    text = text[0].upper() + text[1:]
    if result.nats is None:
        return text if result.status is Status.FAILED else f"{text} No check was passed in {result.steps:,} steps."
    bits = result.nats / math.log(2)
    text += f" The noise that was found is {number(result.nats)} nats from plain noise in total: it supplies "
    if not result.picture_bits:
        return f"{text}{number(bits)} bits of the picture."
    return f"{text}{number(bits)} bits, of the {result.picture_bits:,} bits that the picture takes as PNG."
