"""The sentences about an audit, in words that need no knowledge of diffusion models.

They claim no more than ``docs/number.md`` does: the verdict follows the share of plain samples that are copies where it
was estimated; a replica from chosen noise alone does not prove memorization; the lack of a replica does not rule it
out. If the prompt was searched too, what is said of plain samples holds for that prompt.
"""

import math
from collections.abc import Iterator, Mapping

from invmm_eval.audits.results import NO_SHARE, share_is_known
from invmm_eval.recipe import Recipe
from invmm_eval.reports.failures import by_reason, listed
from invmm_eval.reports.numbers import are, capital, images
from invmm_eval.reports.summary import NOT_PUBLISHED, Summary
from invmm_eval.reports.whole import found_of, sentences
from invmm_eval.search.fields import number, percent
from invmm_eval.search.result import Result
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
    """The verdict in one or two sentences, out of all images, or as many as were searched of a whole set."""
    if not summary.images:
        return "This audit has no results yet."
    alone = summary.images == 1
    searched = " searched" if summary.images < summary.total else ""
    if not summary.measured:
        return "The image could not be measured." if alone else f"None of the {summary.images:,} images was measured."
    if memorized := summary.of(Verdict.MEMORIZED):
        prompt = " with its prompt" if any(result.prompt is not None for result in memorized) else ""
        found = found_of(summary.whole) if summary.whole else _some(len(memorized), summary.images)
        return f"{found} memorized: plain sampling{prompt} gives copies, {one_in(MEMORIZED)} samples or more often."
    if replicable := summary.of(Verdict.REPLICABLE):
        return (
            f"{_some(len(replicable), summary.images, searched)} replicable from noise that the search chose. This "
            "does not show that plain sampling produces copies."
        )
    none = f"The image{searched} was not" if alone else f"None of the {summary.images:,} images{searched} was"
    return f"{none} replicated within the budget. This does not rule out memorization."


def _some(count: int, of: int, searched: str = "") -> str:
    if of == 1:
        return f"The image{searched} is"
    return f"{count:,} of {'the ' if searched else ''}{of:,} images{searched} {are(count)}"


def what_is_a_copy(summary: Summary) -> str:
    """The threshold of the similarity, and which near copies count."""
    similarity = summary.config["similarity"]
    near = []
    if similarity.get("flip"):
        near.append("mirrored (left to right)")
    if pixels := similarity.get("shift"):
        near.append(f"shifted by up to {pixels} {'pixel' if pixels == 1 else 'pixels'}")
    if part := similarity.get("crop"):
        near.append(f"enlarged from {percent(part)} of the sides, at a corner or in the middle")
    also = f" A copy may also be {' or '.join(near)}." if near else ""
    name = similarity["name"]
    return f"A sample is a copy if its similarity to the image ({name}) is at least {summary.threshold:g}.{also}"


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
                "To judge whether the model memorized an image that is replicable, compare its nats with those of "
                "images that are known to be new, which must be clearly larger."
            )
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
    text = f"{capital(sentence(result))}."
    if result.nats is None:
        return text
    text += f" The noise that was found supplies {number(result.nats / math.log(2))} bits of information"
    return f"{text}; the image takes {result.picture_bits:,} as PNG." if result.picture_bits else f"{text}."
