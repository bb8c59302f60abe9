"""Folders of audits as a run would leave them, written without one: of a text-guided model, with any results."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import torch
from torch import Tensor

from invmm_eval.audits.folder.requested import Requested
from invmm_eval.audits.folder.writing import Store
from invmm_eval.audits.images import Source
from invmm_eval.audits.options import Choices, ModelOptions, Output, Resources
from invmm_eval.audits.plan import OnStep, Plan, make_plan
from invmm_eval.audits.record import kept
from invmm_eval.models.backbone import Backbone
from invmm_eval.recipe import STABLE_DIFFUSION
from invmm_eval.reports.findings import Findings, find
from invmm_eval.search.result import CONFIRMATION, DOSE_RESPONSE, PLAIN_SHARE, Check, Point, Result, Status
from invmm_eval.search.target import Target
from invmm_eval.statistics.response import Response


def planned(backbone: Backbone, model: object = "exact", **choices: Any) -> Plan:
    """The plan of an audit of a loaded model."""
    return make_plan(ModelOptions(source=model), Choices(**choices), backbone=backbone)


def run_plan(
    plan: Plan,
    sources: Sequence[Source],
    resources: Resources = Resources(),
    *,
    out: Path | None = None,
    request: Mapping[str, Any] | None = None,
    on_step: OnStep | None = None,
    output: Output = Output(),
) -> Iterator[Result]:
    """Measure images by a plan in this process, yielding each result as it is ready."""
    sizes = {"batch_size": resources.batch_size, "micro_batch": resources.micro_batch}
    measure = partial(plan.measure, **sizes, on_step=on_step)
    requested = Requested.now([source.name for source in sources], output.part())
    with nullcontext() if out is None else Store(out, plan.config, requested, request, keep=output.keep) as store:
        yield from kept(measure, enumerate(sources), plan.backbone.image_shape, store, Result, requested)


SCALES = (1.0, 3.0, 7.0)
SIDE = 24
DIMENSIONS = 4 * 8 * 8
RECIPE = STABLE_DIFFUSION.changed(guidance=SCALES, max_steps=200)
CONFIG: dict[str, Any] = {
    "model": "org/painter@v1.0",
    "weights": "5" * 40,
    "backbone": {
        "name": "stable-diffusion",
        "dtype": "torch.float16",
        "prompt_mode": "soft",
        "image_shape": [3, 24, 24],
    },
    "similarity": {"name": "sscd", "threshold": 0.5, "sha256": "a" * 64, "side": 64},
    "noise": {"name": "low-rank-gaussian", "rank": 2},
    "recipe": asdict(RECIPE),
    "seed": 3,
    "versions": {"invmm-eval": "0.1.0", "torch": "2.13.0", "diffusers": "0.42.1"},
}
NAMES = ("<script>alert(1)</script>.png", 'a "quoted" & long name.png', "Bild für Übung.jpg", "=1+1,x\n.png")


def picture(seed: int) -> Tensor:
    """A colourful gradient, uint8 ``(3, SIDE, SIDE)``."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand((1, 3, 2, 2), generator=generator)
    return (torch.nn.functional.interpolate(corners, (SIDE, SIDE), mode="bilinear")[0] * 255).to(torch.uint8)


def result(index: int, status: Status, invmm: float = math.nan, name: str = "") -> tuple[Result, Target]:
    """A result with that status, and value where it was replicated, as a search of a guided model leaves it."""
    target = Target(picture(index), name or f"picture {index}.png")
    if status is Status.FAILED:
        return Result(index, target.name, "", status, error="The image <b>cannot</b> be used: it is damaged."), target
    replicated = status is Status.REPLICATED
    counts = (2, 8, 1) if replicated else (8, 8, 8)
    similarities = {
        scale: tuple(0.52 + 0.05 * place if replicated and count == 8 else 0.1 for place in range(count))
        for scale, count in zip(SCALES, counts, strict=True)
    }
    noisy = {
        scale: target.image[None].expand(count, -1, -1, -1).clone() // (1 if replicated and count == 8 else 2)
        for scale, count in zip(SCALES, counts, strict=True)
    }
    kl = invmm if replicated else 0.5
    steps = 100 if replicated else 200
    found = Result(
        index=index,
        name=target.name,
        digest=target.digest,
        status=status,
        kl=kl,
        dimensions=DIMENSIONS,
        steps=steps,
        check=Check(replicated, similarities, noisy),
        noise={"mu": torch.zeros(2)},
        prompt="a <i>red</i> balloon",
        picture_bits=target.bits,
        trace=tuple(
            Point(step, 1 / step, kl * step / steps, 1 + step / 1000, 0.1) for step in range(50, steps + 1, 50)
        ),
        seconds_steps=12.5,
        seconds_checks=2.5,
    )
    return found, target


def streamed(images: Iterable[Any]) -> datasets.IterableDataset:
    """A streaming data set of images: tensors ``(C, H, W)``, of PIL, or the contents of files."""
    held = [image.permute(1, 2, 0).squeeze(-1).numpy() if isinstance(image, Tensor) else image for image in images]
    kinds = datasets.Features({"image": datasets.Image()})
    return datasets.Dataset.from_dict({"image": held}, kinds).to_iterable_dataset()


def estimates(response: Response, confirmed: tuple[int, int] | None = None) -> dict[str, Any]:
    """The values of the built-in estimators: the samples of a curve, and replicas among new samples."""
    found: dict[str, Any] = {DOSE_RESPONSE: response.values()}
    return found if confirmed is None else found | {CONFIRMATION: dict(zip(("hits", "drawn"), confirmed, strict=True))}


KNOWN = {"share": 1 / 38.6, "low": 1 / 57.2, "high": 1 / 27.9, "copies": 90, "plain_copies": 9, "plain_samples": 400}
"""About 1 in 39 plain samples, 1 in 27 to 1 in 58."""


def shared(result: Result, **values: Any) -> Result:
    """The result with a share of plain samples, no copies unless ``values`` say otherwise."""
    return replace(
        result,
        estimates={
            **result.estimates,
            PLAIN_SHARE: {"share": 0.0, "low": 0.0, "copies": 0, "samples": 160, **values},
        },
    )


def write(
    folder: Path,
    results: Iterable[tuple[Result, Target]],
    config: Mapping[str, Any] = CONFIG,
    *,
    asked: Sequence[str] | None = None,
) -> Path:
    """The folder that holds these, of an audit that was asked for images of these names."""
    with Store(folder, config, Requested.now(asked) if asked else None) as store:
        for found, target in results:
            store.add(found, target)
    return folder


def guided(folder: Path) -> Path:
    """Four images that were replicated, one of them memorized, two that were not and one that failed."""
    values = (0.02, 0.4, 0.9, 0.15)
    found = [result(index, Status.REPLICATED, value, NAMES[index]) for index, value in enumerate(values)]
    found[0] = shared(found[0][0], **KNOWN), found[0][1]
    found += [result(index, Status.EXHAUSTED) for index in (4, 5)]
    return write(folder, [*found, result(6, Status.FAILED)])


def of_values(folder: Path, values: Sequence[float | None]) -> Findings:
    """Findings with one image per value: infinite if it was not replicated, None if it failed."""
    kinds = [Status.FAILED if v is None else Status.EXHAUSTED if math.isinf(v) else Status.REPLICATED for v in values]
    rows = zip(range(len(values)), kinds, values, strict=True)
    return find(write(folder, [result(index, kind, value or 0.0) for index, kind, value in rows]))
