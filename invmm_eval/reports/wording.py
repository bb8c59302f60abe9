"""Sentences about one result, about counts, and about the limits of a recipe, without words of the field."""

import math
from collections.abc import Iterator, Mapping

from invmm_eval.recipe import Recipe
from invmm_eval.reports.numbers import capital, images
from invmm_eval.search.fields import number
from invmm_eval.search.result import Result
from invmm_eval.search.sentence import sentence
from invmm_eval.search.status import Verdict

_LIMITS = (
    "That no copy was found does not prove that an image was not memorized: the search may have failed within its "
    "budget.",
    "A copy from chosen noise alone does not prove memorization: with enough nats, noise can be found even for "
    "images that the model was never trained on, above all simple ones with a few bold shapes.",
    "This is not a membership test: an image from the training set need not be memorized.",
    "The result depends on the similarity and its threshold, which decide what counts as a copy.",
)
_NOISY = (
    "The InvMM of this recipe is noisy: it is the KL at the first check that all samples pass. Compare values of the "
    "same recipe only, and repeat them over seeds."
)
_ALONG = (
    "The share is estimated along one direction of the noise. Copies whose noise lies elsewhere are missed, so that it "
    "is a lower limit unless plain samples were counted too."
)
_ROUGH = "InvMM is rough, since this recipe tries few distances of the noise: compare images by their share."
_GIVEN = "Prompts other than the given one may give copies more or less often, and an attacker may choose the prompt."
SEARCHED = (
    "The prompt was searched. An image may come back far more often with its caption: measure that too, with "
    "--captions and --backbone-option prompt-mode=caption."
)

REMEDY = "take {} out of the training, filter {} copies, or decide that they may be given out"
"""What to do about memorized images, of words for the images and for whose copies."""
LOOK = "look at the samples that count as copies: if they are none, set the threshold with invmm-eval calibrate."
"""What to do about replicable images."""


def limits(recipe: Recipe, prompt_mode: object = None) -> Iterator[str]:
    """What the measure cannot show with a recipe, and of a model with prompts with a ``prompt_mode``."""
    yield from _LIMITS
    yield _NOISY if recipe.optimizer == "adam" else _ALONG
    if recipe.optimizer == "one-shot":
        yield _ROUGH
    if prompt_mode:
        yield SEARCHED if prompt_mode == "soft" else _GIVEN


def counted(counts: Mapping[Verdict, int]) -> str:
    """The number of images of each verdict in one line, such as ``Of 7 images: 1 memorized, ...``."""
    parts = (f"{count:,} {verdict}" for verdict, count in counts.items())
    return f"Of {images(sum(counts.values()))}: {', '.join(parts)}."


def meaning(result: Result) -> str:
    """What the result of one image says: the sentence about plain sampling, then what the noise supplied."""
    text = f"{capital(sentence(result))}."
    if result.nats is None:
        return text
    text += f" The chosen noise supplies {number(result.nats / math.log(2))} bits of information"
    return f"{text}; the image as PNG has {result.picture_bits:,}." if result.picture_bits else f"{text}."
