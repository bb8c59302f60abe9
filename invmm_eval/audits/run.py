"""One way in: a request becomes a plan, and the plan is run, in this process or in many.

request  ->  plan  ->  images one by one  ->  invert  ->  results, kept in a folder
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Unpack

from invmm_eval.audits.options import Choices, ModelOptions, with_options
from invmm_eval.audits.plan import OnStep, Plan, default_similarity, make_plan, no_captions
from invmm_eval.audits.progress import Bar
from invmm_eval.audits.record import measured
from invmm_eval.audits.request import Request
from invmm_eval.audits.results import Results
from invmm_eval.audits.typed import AuditOptions
from invmm_eval.audits.workers import actors, launched, ranks
from invmm_eval.errors import InvMMError
from invmm_eval.models.backbone import Backbone
from invmm_eval.search.result import Result


@with_options()
def audit(
    model: object,
    images: Any,
    *,
    captions: str | Sequence[str | None] | None = None,
    out: str | Path | None = None,
    on_step: OnStep | None = None,
    progress: bool = True,
    **options: Unpack[AuditOptions],
) -> Results:
    """Measure how much a model memorized each of a set of images.

    Args:
        model: Folder written by ``save_pretrained``, Hub id, loaded diffusers pipeline, or ``reference``.
        images: A folder, a file, ``dataset:NAME[:[config/]split[:column]]``, ``reference`` or ``reference:held-out``, a
            dataset with an image column, or a list of paths, PIL images, arrays or tensors.
        captions: The texts, one per image, or where they are, as :func:`invmm_eval.find_images` takes it.
        out: Output folder. An existing audit in it is resumed.
        on_step: Called after each step with the searches in progress; not called with workers.
        progress: Whether to show a progress bar where there is a terminal or a notebook.
        **options: {options}

    Returns:
        A list of one result per image, in their order. With an output folder, tensors are read from it when they are
        looked at.

    Raises:
        InvMMError: A requested model, backbone, similarity, noise family, recipe, option, device or image is unknown or
            incompatible.
    """
    request = Request.of(model, images, captions, **options)
    leads = launched()[1]
    with Bar(len(request.sources) if leads else 0, shown=progress and leads, also=on_step) as bar:
        found = bar.over(run(request, out=out, on_step=bar.on_step))
        return Results(sorted(found, key=lambda result: result.index))


def run(
    request: Request,
    *,
    out: str | Path | None = None,
    on_step: OnStep | None = None,
    backbone: Backbone | None = None,
) -> Iterator[Result]:
    """Measure the images of a request, yielding each result as it is ready.

    Args:
        request: What is measured, and how.
        out: Output folder. An existing audit in it is resumed.
        on_step: Called after each step with the searches in progress; not called with workers.
        backbone: The loaded model, for a run without workers; None loads it.

    Raises:
        InvMMError: A requested model, backbone, similarity, noise family, recipe, option, device or image is unknown or
            incompatible.
    """
    resources = request.resources
    if resources.workers is None:
        sources = request.sources
        plan = make_plan(request.model, request.choices, device=resources.device, backbone=backbone)
        yield from plan.run(sources, resources, out=out, request=request.record(), on_step=on_step)
        return
    ranked = resources.workers == "ranks"
    sources = request.sources if not ranked or launched()[1] else []
    choices = request.choices if ranked else _sendable(request)
    plan_of = partial(worker_plan, request.model, choices, captions=not no_captions(sources))
    with (ranks if ranked else actors)(plan_of, resources, len(sources)) as team:
        if team:
            first = team.first
            yield from measured(team.measure, sources, first.image_shape, first.config, out, request.record())


def worker_plan(model: ModelOptions, choices: Choices, device: str | None, *, captions: bool = True) -> Plan:
    """The plan of a worker, on its device; without captions, a model that needs them is refused."""
    plan = make_plan(model, choices, device=device)
    if not captions:
        plan.backbone.condition(None)
    return plan


def _sendable(request: Request) -> Choices:
    """The choices that Ray sends to workers: parts by name, chosen by this process's environment."""
    similarity = request.choices.similarity or default_similarity()
    for part, what in ((request.model.source, "model"), (similarity, "similarity")):
        if not isinstance(part, str | Path):
            raise InvMMError(
                f"Workers load the {what} themselves, so a {type(part).__name__} cannot be sent to them; give a "
                "folder, a Hub id or a registered name."
            )
    return replace(request.choices, similarity=similarity)
