"""What a request will cost: network rows, time and disk, before anything is written.

The rows of a search are those of the search itself, run on a stand-in for the model: a tiny one that has memorized the
image, or one that never comes near it. So they follow any recipe.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import chain

import torch
from torch import Tensor

from invmm_eval.audits.images import Source
from invmm_eval.audits.options import Extent, Output
from invmm_eval.audits.plan import Plan, load, make_plan
from invmm_eval.audits.request import Request
from invmm_eval.audits.run import processes
from invmm_eval.audits.whole.screening import make_detector
from invmm_eval.models.backbone import Backbone
from invmm_eval.models.condition import Condition, Context, SoftPrompt, Unconditional, different_scales
from invmm_eval.recipe import Recipe
from invmm_eval.search.engine import invert
from invmm_eval.search.rows import Counted
from invmm_eval.search.target import Target
from invmm_eval.similarity.pixel_cosine import PixelCosine

PROBE = 4.0
"""Seconds of each of the two probes of the model: of a screening and of a search."""
_SHAPE = (1, 4, 4)
_LINE = 4096


@dataclass(frozen=True)
class Searches:
    """What searches cost.

    Attributes:
        images: Number of images that are searched, in a two-phase audit if none is memorized.
        clean_rows: Network rows for an image that is not memorized.
        memorized_rows: For one that comes back at the first check.
        common_rows: For what the images of a process have in common.
        row_seconds: Time per row.
        image_bytes: Most that an image takes on the disk.
    """

    images: int
    clean_rows: int
    memorized_rows: int
    common_rows: int
    row_seconds: float
    image_bytes: int


@dataclass(frozen=True)
class Price:
    """What a request is expected to cost.

    Attributes:
        images: Number of images.
        screen_rows: Network rows of the screen, per image; 0 without one.
        screen_row_seconds: Time per row of the screen.
        searches: What the searches cost; None for a screening alone.
        extent: How many images are searched; None for all.
        processes: Number of processes that share the work; the times are those of one.
        device: What the model was probed on.
    """

    images: int
    screen_rows: int
    screen_row_seconds: float
    searches: Searches | None
    extent: Extent | None
    processes: int
    device: str


def price(request: Request, *, screens: bool = False, searches: bool = True) -> Price:
    """Load the model, probe it for some seconds, and compute what a request will cost.

    Args:
        request: What is requested.
        screens: Whether images are ranked.
        searches: Whether images are searched.

    Raises:
        InvMMError: A requested part, option, device or image is unknown or incompatible.
    """
    first, number, resources = request.sources[0], request.expected, request.resources
    backbone = load(request.model, resources.device)
    rows, seconds = 0, 0.0
    if screens:
        rows = make_detector(request.screen).rows
        seconds = row_seconds(backbone, first.caption, resources.micro_batch or rows)
    found = None
    if searches:
        plan = make_plan(request.model, request.choices, device=resources.device, backbone=backbone)
        extent = request.extent
        searched = number if extent is None else min(number, extent.clean + extent.control)
        found = _searches(plan, first, resources.micro_batch, searched, request.output)
    return Price(number, rows, seconds, found, request.extent, processes(resources), str(backbone.device))


def _searches(plan: Plan, first: Source, micro_batch: int | None, images: int, output: Output) -> Searches:
    recipe, backbone = plan.recipe, plan.backbone
    condition = backbone.condition(first.caption)
    plan = replace(plan, recipe=replace(recipe, guidance=different_scales(condition, recipe.guidance)))
    searches_prompt = bool(condition.parameters())
    clean, common = rows_of_search(plan, memorized=False, searches_prompt=searches_prompt)
    memorized, more = rows_of_search(plan, memorized=True, searches_prompt=searches_prompt)
    seconds = row_seconds(backbone, first.caption, micro_batch or recipe.draws)
    channels, height, width = backbone.image_shape
    with torch.no_grad():
        q = plan.noise(backbone.encode(torch.zeros(1, *backbone.image_shape, device=backbone.device))[0])
    tensors = chain(q.parameters().values(), condition.parameters().values())
    pixels = (1 + 2 * recipe.check_images * len(recipe.guidance)) * channels * height * width
    files = sum(tensor.numel() * tensor.element_size() for tensor in tensors) + pixels
    size = _LINE + (0 if output.keep == "nothing" else files)
    shared = max(common, more) if searches_prompt or not condition.prompt() else 0
    return Searches(images, clean, memorized, shared, seconds, size)


def rows_of_search(plan: Plan, *, memorized: bool, searches_prompt: bool = False) -> tuple[int, int]:
    """Network rows of one search, and of what it has in common with others.

    A search longer than four checks costs the same for each further check, so it is not run to its end.

    Args:
        plan: Its recipe, noise family and estimators.
        memorized: Whether the image comes back at once, or never.
        searches_prompt: Whether a prompt is searched.
    """
    recipe = plan.recipe
    checks = recipe.max_steps // recipe.check_every
    if memorized or checks <= 4:
        return _counted(plan, recipe, memorized, searches_prompt)
    (two, common), (three, _) = (
        _counted(plan, replace(recipe, max_steps=n * recipe.check_every), memorized, searches_prompt) for n in (2, 3)
    )
    return two + (checks - 2) * (three - two), common


def _counted(plan: Plan, recipe: Recipe, memorized: bool, searches_prompt: bool) -> tuple[int, int]:
    picture = (torch.arange(16).view(_SHAPE) * 15).to(torch.uint8)
    counted = Counted(_StandIn(plan.backbone, picture if memorized else 255 - picture, searches_prompt))
    [result] = invert(
        counted,
        [Target(picture)],
        PixelCosine(device=counted.device),
        plan.noise,
        recipe=replace(recipe, threshold=None),
        estimators=plan.estimators,
        seed=plan.seed,
    )
    return result.rows or 0, counted.rows - (result.rows or 0)


class _StandIn:
    """A model of one picture with the times of another."""

    image_shape = _SHAPE
    settings: Mapping[str, str | int | float | None] = {}
    clip: float | None = None

    def __init__(self, model: Backbone, picture: Tensor, searches_prompt: bool) -> None:
        self.device, self.schedule, self.recipe = model.device, model.schedule, model.recipe
        self.own_path = getattr(model, "own_path", None)
        self._x_0 = self.encode(picture.to(self.device) / 255)
        self._searches_prompt = searches_prompt

    def encode(self, images: Tensor) -> Tensor:
        return images * 2 - 1

    def decode(self, x_0: Tensor) -> Tensor:
        return (x_0 / 2 + 0.5).clamp(0, 1)

    def condition(self, caption: str | None = None) -> Condition:  # noqa: ARG002
        if not self._searches_prompt:
            return Unconditional()
        null = {"w": torch.zeros(1, 1, 2, device=self.device)}
        return SoftPrompt((1, 2), lambda weights: {"w": weights}, null, lambda _: "", device=self.device)

    def predict_x0(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:  # noqa: ARG002
        return self._x_0 + 1e-3 * x_t


@torch.no_grad()
def row_seconds(backbone: Backbone, caption: str | None, rows: int, seconds: float = PROBE) -> float:
    """Time per row of network calls without gradients, on the device of the model.

    Args:
        backbone: The model.
        caption: A caption, for models that take one.
        rows: Number of rows of a call.
        seconds: After so long no further call is made.
    """
    generator = torch.Generator(backbone.device).manual_seed(0)
    context = backbone.condition(caption).rsample(rows, generator)
    x_0 = backbone.encode(torch.zeros(1, *backbone.image_shape, device=backbone.device))
    x_t = torch.randn(rows, *x_0.shape[1:], generator=generator, device=backbone.device)
    t = backbone.schedule.grid(2)[1].expand(rows)
    began = started = time.perf_counter()
    calls = 0
    while not calls or time.perf_counter() - began < seconds:
        backbone.predict_x0(x_t, t, context).sum().item()  # waits for the device
        if not calls:
            started = time.perf_counter()  # the first call also prepares the device
        calls += 1
    if calls == 1:
        return (started - began) / rows
    return (time.perf_counter() - started) / ((calls - 1) * rows)
