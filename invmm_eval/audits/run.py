"""One way in: a request becomes a plan, and the plan is run, in this process or in many.

request  ->  plan  ->  images one by one  ->  invert  ->  results, kept in a folder
"""

import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from invmm_eval.audits.folder.requested import Requested
from invmm_eval.audits.folder.writing import Store
from invmm_eval.audits.launched import launched
from invmm_eval.audits.options import RUN_OPTIONS, Choices, Resources, with_options
from invmm_eval.audits.plan import OnStep, default_similarity, make_plan, no_captions
from invmm_eval.audits.progress import Bar
from invmm_eval.audits.record import kept
from invmm_eval.audits.request import Request
from invmm_eval.audits.results import Results
from invmm_eval.audits.workers import actors, ranks
from invmm_eval.audits.workers.team import Ready, Team, Work
from invmm_eval.errors import InvMMError
from invmm_eval.models.backbone import Backbone
from invmm_eval.search.result import Result


@with_options(RUN_OPTIONS)
def audit(
    model: object,
    images: Any,
    *,
    captions: str | Sequence[str | None] | None = None,
    out: str | Path | None = None,
    on_step: OnStep | None = None,
    progress: bool = True,
    **options: Any,
) -> Results:
    """Measure how much a model memorized each of a set of images.

    Args:
        model: Folder written by ``save_pretrained``, Hub id, loaded diffusers pipeline, or ``reference``.
        images: A folder, a file, ``dataset:NAME[:[config/]split[:column]]``, ``reference`` or ``reference:held-out``, a
            dataset with an image column, or a list of paths, PIL images, arrays or tensors.
        captions: The texts, one per image, or where they are, as :func:`invmm_eval.find_images` takes it.
        out: Output folder. An existing audit in it is resumed.
        on_step: Called after each step with the searches in progress, and after samples of an estimator with the
            one that they are for; not called with workers.
        progress: Whether to show a progress bar where there is a terminal or a notebook.
        **options: {options}

    Returns:
        A list of one result per image, in their order. With an output folder, tensors are read from it when they are
        looked at.

    Raises:
        InvMMError: A requested model, backbone, similarity, noise family, recipe, option, device or image is unknown or
            incompatible.
    """
    request = Request.of(model, images, captions, names=RUN_OPTIONS, **options)
    with Bar(request.expected, shown=progress, also=on_step) as bar:
        found = bar.over(run(request, out=out, on_step=bar.on_step))
        return Results(sorted(found, key=lambda result: result.index))


@torch.inference_mode(mode=False)
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
        on_step: Called after each step with the searches in progress, and after samples of an estimator with the
            one that they are for; not called with workers.
        backbone: The loaded model, for a run without workers; None loads it.

    Raises:
        InvMMError: A requested model, backbone, similarity, noise family, recipe, option, device or image is unknown or
            incompatible.
    """
    make = partial(make_plan, request.model, sendable(request), backbone=backbone)
    with team(request, make, on_step=on_step) as workers:
        if workers:
            first, sources, keep = workers.first, request.sources, request.output.keep
            requested = Requested.now([source.name for source in sources], request.output.part())
            record = request.record()
            with nullcontext() if out is None else Store(out, first.config, requested, record, keep=keep) as store:
                yield from kept(workers.measure, enumerate(sources), first.image_shape, store, Result, requested)


@contextmanager
def team(
    request: Request, make: Callable[..., Work], kind: type[Any] = Result, *, on_step: OnStep | None = None
) -> Iterator[Team | None]:
    """What measures the images of a request: this process, actors of Ray, or ranks of torchrun, where rank 0 has it.

    Args:
        request: Its images and resources.
        make: ``make(device=NAME)`` loads the model, in each process.
        kind: What is found for an image.
        on_step: Called after each step with the searches in progress, and after samples of an estimator with the
            one that they are for; not called with workers.
    """
    resources = request.resources
    if isinstance(resources.workers, int):
        check_sendable(request.model.source, "model")
    sources = request.sources if resources.workers != "ranks" or launched()[1] else []
    work = partial(worker_plan, make, not no_captions(sources))
    if resources.workers is not None:
        with (ranks if resources.workers == "ranks" else actors)(work, resources, len(sources), kind) as workers:
            yield workers
        return
    plan = work(resources.device)
    measure = partial(plan.measure, batch_size=resources.batch_size, micro_batch=resources.micro_batch, on_step=on_step)
    yield Team(Ready(plan.backbone.image_shape, plan.config, platform.node()), measure)


def processes(resources: Resources) -> int:
    """The number of processes that measure images at the same time."""
    return launched()[0] if resources.workers == "ranks" else resources.workers or 1


def worker_plan(make: Callable[..., Work], captions: bool, device: str | None) -> Work:
    """What a process works by, on its device; without captions, a model that needs them is refused."""
    plan = make(device=device)
    if not captions:
        plan.backbone.condition(None)
    return plan


def sendable(request: Request) -> Choices:
    """The choices that Ray sends to workers: parts by name, chosen by this process's environment."""
    if not isinstance(request.resources.workers, int):
        return request.choices
    similarity = request.choices.similarity or default_similarity()
    check_sendable(similarity, "similarity")
    return replace(request.choices, similarity=similarity)


def check_sendable(part: object, what: str) -> None:
    """Check that workers can load a part themselves.

    Raises:
        InvMMError: It is an object.
    """
    if not isinstance(part, str | Path):
        raise InvMMError(
            f"Workers load the {what} themselves, so a {type(part).__name__} cannot be sent to them; give a folder, a "
            "Hub id or a registered name."
        )
