"""Find the similarity threshold on held-out images: the model cannot know them, so every replica of them is false.

Their searches take all steps, whatever they reach. A search does not depend on the threshold beta until it ends, so an
image would have been replicated under beta if its best score at any check is at least beta. Of n images, k may be: the
largest k with

    (k + 1) / (n + 1) <= rate.

The threshold lies just above the other n - k best scores. Of further images of the same kind, the share that reach it
is then distributed as Beta(k + 1, n - k), or lies below: its mean is at most ``rate``, and its upper limit is that of
:mod:`invmm_eval.statistics.binomial` (Wilks 1941, "Determination of sample sizes for setting tolerance limits").

If searches get nowhere near a held-out image, their scores say little. So the threshold is also half-way at least from
the similarities of different held-out images to each other to those of copies, which are held-out images with a little
Gaussian noise: except for a share of ``rate``, pairs of different images lie below the one, and copies above the other.
A warning says where this sets the threshold.
"""

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from invmm_eval.audits.calibration import FILE, RATE, Calibration, allowed
from invmm_eval.audits.images import Source
from invmm_eval.audits.options import OPTIONS, with_options
from invmm_eval.audits.pictures import prepare
from invmm_eval.audits.plan import OnStep, Plan, default_similarity, load, make_plan
from invmm_eval.audits.progress import Bar
from invmm_eval.audits.request import Request
from invmm_eval.audits.run import run
from invmm_eval.errors import InvMMError
from invmm_eval.search.result import Result, Status

_log = logging.getLogger(__name__)

COPY_NOISE = 0.1
"""Standard deviation of the noise of a copy; pixels are in [0, 1]."""


@with_options(OPTIONS.keys() - {"calibration"})
def calibrate(
    model: object,
    held_out: Any,
    *,
    rate: float = RATE,
    captions: str | Sequence[str | None] | None = None,
    out: str | Path | None = None,
    on_step: OnStep | None = None,
    progress: bool = True,
    **options: Any,
) -> Calibration:
    """Find the threshold at which a model replicates at most a share of images that it was not trained on.

    Args:
        model: Folder written by ``save_pretrained``, Hub id, loaded diffusers pipeline, or ``reference``.
        held_out: The images, as :func:`invmm_eval.audit` takes them; those that fail are not counted.
        rate: The share, in (0, 1). With n images it can be as low as 1 / (n + 1).
        captions: The texts, one per image, or where they are.
        out: Output folder of the searches and of ``calibration.json``. Existing searches in it are resumed.
        on_step: Called after each step with the searches in progress, and after samples of an estimator with the
            one that they are for; not called with workers.
        progress: Whether to show a progress bar where there is a terminal or a notebook.
        **options: {options}

    Raises:
        InvMMError: The images are too few for the rate, the folder cannot be used, or a requested part is unknown or
            incompatible.
    """
    request = requested(model, held_out, captions, rate, **options)
    return calibrated(request, rate, out=out, on_step=on_step, progress=progress)


def requested(model: object, held_out: Any, captions: Any, rate: float, **options: Any) -> Request:
    """The searches of a calibration, which take all steps.

    Raises:
        InvMMError: As :func:`calibrate`.
    """
    if options.get("workers") == "ranks":
        raise InvMMError("A calibration does not run under torchrun; give a number of workers, which Ray starts.")
    request = Request.of(model, held_out, captions, **options)
    allowed(rate, len(request.sources))
    choices = request.choices
    similarity, settings = choices.similarity or default_similarity(), {**choices.settings, "stop": False}
    return replace(request, choices=replace(choices, similarity=similarity, settings=settings))


def calibrated(
    request: Request,
    rate: float,
    *,
    out: str | Path | None = None,
    on_step: OnStep | None = None,
    progress: bool = True,
) -> Calibration:
    """The calibration by the searches of a request, as :func:`calibrate` makes it."""
    device = request.resources.device
    backbone = None if request.resources.workers else load(request.model, device)
    with Bar(len(request.sources), shown=progress, also=on_step) as bar:
        results = list(bar.over(run(request, out=out, on_step=bar.on_step, backbone=backbone)))
    plan = make_plan(request.model, request.choices, device=device, backbone=backbone)
    found = _found(plan, request.sources, results, rate)
    if out is not None:
        found.save(Path(out) / FILE)
    return found


def _found(plan: Plan, held_out: Sequence[Source], results: Iterable[Result], rate: float) -> Calibration:
    best = {result.index: _best(result) for result in results}
    images = sorted(index for index, score in best.items() if math.isfinite(score))
    scores = tuple(sorted((best[index] for index in images), reverse=True))
    threshold = _above(scores, allowed(rate, len(scores)))
    compare = plan.similarity.compare
    features = [_features(plan, held_out[index]) for index in images]
    pairs = [compare(a, b).item() for (a, _), (b, _) in combinations(features, 2)]
    copies = [compare(copy, image).item() for image, copy in features]
    least = _above(pairs, math.floor(rate * len(pairs))) if pairs else None
    most = math.floor(1000 * sorted(copies)[math.floor(rate * len(copies))]) / 1000
    floor = threshold if least is None else round((least + most) / 2, 3)
    if floor > threshold:
        _log.warning(
            "By the searches the threshold would be %.3f, too far from a copy: it is %.3f, half-way from different "
            "images (%.3f) to copies (%.3f). Take more steps to set it by searches.",
            threshold,
            floor,
            least,
            most,
        )
    return Calibration(max(floor, threshold), rate, scores, least, plan.config, most)


def _features(plan: Plan, source: Source) -> tuple[Tensor, Tensor]:
    """Those of an image, and of the image with noise."""
    image = prepare(source.value, plan.backbone.image_shape)[None].float() / 255
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(plan.seed))
    itself, copy = ((image + level * noise).clamp(0, 1).to(plan.backbone.device) for level in (0, COPY_NOISE))
    return plan.similarity.embed(itself), plan.similarity.embed(copy)


def _best(result: Result) -> float:
    """The best score at any check; -inf if there is none, or if the search failed."""
    scores = () if result.status is Status.FAILED else (point.score for point in result.trace)
    return max(filter(math.isfinite, scores), default=-math.inf)


def _above(values: Iterable[float], count: int) -> float:
    """The least number of thousandths that at most ``count`` of the values reach."""
    return math.floor(1000 * sorted(values, reverse=True)[count] + 1) / 1000
