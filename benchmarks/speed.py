"""How fast the measure is: against its own network, against the plain protocol, and with its options.

    python -m benchmarks.speed --quick --json speed.json     # few pairs of short runs
    python -m benchmarks.speed --only plain options

On the pixel model that ships with the package, and on a small guided Stable Diffusion whose prompt is searched. A value
"over" another is the median of ratios, each of two timings one right after the other:

limit        a step, and a whole audit, over the forward and backward passes that they make of the bare network
plain        the published protocol done plainly over ours: one image at a time, every check complete at all guidance
             scales; with equal random numbers, so that verdicts and values must agree
fast         a period of the published protocol, done plainly, over the recipe fast: rows, seconds, and seconds a row,
             where a row with gradients counts as three or as what it takes here. A search that replicates nothing takes
             all periods; one image alone, and eight together at 64 rows
options      images one by one, and what changes the arithmetic, over the default at equal seeds: time, verdicts and
             values, with those of other seeds
network      milliseconds a row of the network by the number of rows at once, and by the size of the images

Published recipes are taken at a fifth of their length: checks come after 10 steps instead of 50 and have a fifth of the
sampler steps, so that steps and checks cost in proportion what they do in a full audit.

On a CPU one thread is used and the CPU time of the process is compared, which other processes on the machine disturb
least. On CUDA wall-clock time is compared.
"""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import torch
from torch import Tensor

from benchmarks.common.plain import plain, with_gradients
from benchmarks.common.plans import measure, planned
from benchmarks.common.script import parser, show, write
from invmm_eval.audits.pictures import prepare
from invmm_eval.audits.plan import Plan, load_backbone
from invmm_eval.device import find_device
from invmm_eval.models.backbone import Backbone
from invmm_eval.models.condition import Context, repeat
from invmm_eval.recipe import RECIPES
from invmm_eval.reference import MODEL, Picture, choose, pictures
from invmm_eval.search.result import Status
from invmm_eval.search.rows import GRADIENT, Counted
from invmm_eval.search.target import Target

T = TypeVar("T")
C = TypeVar("C")
Figures = dict[str, Any]
Call = tuple[Tensor, Tensor, Context, bool]
"""x_t, t and context of a network call, and whether it has gradients."""

MODELS = {"pixel": MODEL, "guided": Path(__file__).parents[1] / "tests" / "data" / "stable-diffusion"}
FIFTH: dict[str, dict[str, Any]] = {
    "pixel": {"check_every": 10, "sampler_steps": 40, "threshold": 0.9},
    "guided": {"check_every": 10, "sampler_steps": 10, "threshold": 0.8},
}
"""A fifth of the published recipes, and similarities from which on these models' replicas are replicas."""
TOGETHER = 8
"""Images that are searched together."""


class Clock:
    """Seconds of work on a device: of the process on the CPU, of the day on CUDA."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            return time.perf_counter()
        return time.process_time()

    def timed(self, work: Callable[[], T]) -> tuple[T, float]:
        """What ``work`` returns, and the seconds it took."""
        start = self.now()
        return work(), self.now() - start

    def compared(self, a: Callable[[C], list[Any]], b: Callable[[C], list[Any]], cases: Iterable[C]) -> Figures:
        """The median ratio of the seconds of a and b for some cases, and how far their results agree."""
        took = [(self.timed(partial(a, case)), self.timed(partial(b, case))) for case in cases]
        pairs = [pair for (some, _), (others, _) in took for pair in zip(some, others, strict=True)]
        both = [(x, y) for x, y in pairs if x.status is y.status and x.kl and y.kl]
        factors = [max(x.kl / y.kl, y.kl / x.kl) for x, y in both] or [math.nan]
        return {
            "the first over the second": median(longer / seconds for (_, longer), (_, seconds) in took),
            "equal verdicts": f"{sum(x.status is y.status for x, y in pairs)} of {len(pairs)}",
            "equal steps": f"{sum(x.steps == y.steps for x, y in pairs)} of {len(pairs)}",
            "replicated": f"{sum(x.status is Status.REPLICATED for x, _ in pairs)} of {len(pairs)}",
            "median factor of KL": median(factors),
            "largest": max(factors),
        }


class Recorded(Counted):
    """A backbone that keeps the inputs of its network calls."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__(backbone)
        self.calls: list[Call] = []

    def predict_x0(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        before = self.rows
        x_0 = super().predict_x0(x_t, t, context)
        inputs = x_t.detach(), t, {name: tensor.detach() for name, tensor in context.items()}
        self.calls.append((*inputs, self.rows - before > len(x_t)))
        return x_0


def priced(calls: Iterable[Call], gradient: float = GRADIENT) -> float:
    """The rows of network calls, where one with gradients counts as so many."""
    return sum(len(x_t) * (gradient if gradients else 1) for x_t, _, _, gradients in calls)


def bare(backbone: Backbone, calls: Sequence[Call]) -> None:
    """The network alone, called again with the same inputs and gradients."""
    for x_t, t, context, gradient in calls:
        with torch.set_grad_enabled(gradient):
            x_t, *others = inputs = [tensor.clone().requires_grad_(gradient) for tensor in (x_t, *context.values())]
            x_0 = backbone.predict_x0(x_t, t, dict(zip(context, others, strict=True)))
            if gradient:
                torch.autograd.grad(x_0.sum(), inputs)


def memorized_and_new(model: str) -> dict[str, list[Picture]]:
    """Pictures that were repeated in training, and some that were held out."""
    if model == "pixel":
        known = choose(pictures(), each=3, held_out=16)
        return {"memorized": known[:6], "new": known[-16:]}
    by_name = {picture.name: picture for picture in pictures()}
    names = {"memorized": ("pineapple", "beverage box"), "new": ("couple with heart", "hamburger")}
    return {kind: [by_name[name] for name in chosen] for kind, chosen in names.items()}


def fifth(model: str, device: str | None, dtype: str = "float32", **settings: Any) -> Plan:
    """The published recipe at a fifth of its length, with changes."""
    backbone = load_backbone(MODELS[model], device=device, dtype=dtype)
    return planned(backbone, backbone.recipe.changed(**{**FIFTH[model], **settings}))


def targets_of(chosen: Sequence[Picture], backbone: Backbone) -> list[Target]:
    side = backbone.image_shape[1]
    return [
        Target(prepare(picture.image.reduce(picture.image.width // side), backbone.image_shape), picture.name)
        for picture in chosen
    ]


def limit(pairs: int, audits: int, device: str | None) -> Figures:
    clock, figures = Clock(find_device(device)), Figures()
    for model in FIFTH:
        step = fifth(model, device, max_steps=10, check_images=1, sampler_steps=1, guidance=(1.0,))
        audit = fifth(model, device, max_steps=20)
        for name, plan, count in (("step", step, pairs), ("audit", audit, audits)):
            targets = targets_of(memorized_and_new(model)["new"][:1], plan.backbone)
            recorded = Recorded(plan.backbone)
            measure(replace(plan, backbone=recorded), targets)
            ours, network = partial(measure, plan, targets), partial(bare, plan.backbone, recorded.calls)
            ratios = [clock.timed(ours)[1] / clock.timed(network)[1] for _ in range(count)]
            figures[f"{model}: {name} over bare network"] = median(ratios)
    return figures


def against_plain(checks: int, most: int, device: str | None) -> Figures:
    """The weights of pixel models are frozen in the authors' script, those of Stable Diffusion take gradients."""
    clock, figures = Clock(find_device(device)), Figures()
    for model in FIFTH:
        plan = fifth(model, device, max_steps=checks * FIFTH[model]["check_every"])
        other = fifth(model, device).backbone
        slow = replace(plan, backbone=with_gradients(other) if model == "guided" else other)
        for kind, chosen in memorized_and_new(model).items():
            targets = targets_of(chosen[:most], plan.backbone)
            found = clock.compared(lambda one: [plain(slow, one)], lambda one: measure(plan, [one]), targets)  # noqa: B023
            figures |= {f"{model}, {kind}, plain and ours: {what}": value for what, value in found.items()}
    return figures


def against_fast(pairs: int, device: str | None) -> Figures:
    """One period of the published protocol, done plainly, and the recipe fast without its pool of plain samples."""
    clock, figures = Clock(find_device(device)), Figures()
    for model in FIFTH:
        part = fifth(model, device, max_steps=FIFTH[model]["check_every"])
        backbone = part.backbone
        published = backbone.recipe.changed(threshold=part.recipe.threshold)
        ours = planned(backbone, RECIPES["fast"](published).changed(plain=0))
        for kind, chosen in memorized_and_new(model).items():
            targets = targets_of(chosen, backbone)
            whole = published.check_every / part.recipe.check_every  # the rows of a period, of which part is a fifth
            whole *= 1 if kind == "memorized" else published.max_steps // published.check_every
            spent = []
            for target in islice(cycle(targets), pairs):
                alone, together, plainly = (Recorded(backbone) for _ in range(3))
                some = partial(measure, replace(ours, backbone=together), list(islice(cycle(targets), TOGETHER)))
                [found], seconds = clock.timed(partial(measure, replace(ours, backbone=alone), [target]))
                _, longer = clock.timed(partial(plain, replace(part, backbone=plainly), target))
                _, seconds_together = clock.timed(partial(some, batch_size=TOGETHER, micro_batch=64))
                gradient = gradient_price(clock, backbone, plainly.calls)
                row = seconds / priced(alone.calls), seconds_together / priced(together.calls)
                at_that = seconds / priced(alone.calls, gradient), seconds_together / priced(together.calls, gradient)
                theirs = [longer / priced(plainly.calls, each) for each in (GRADIENT, gradient)]
                spent.append(
                    {
                        "rows of fast": float(found.rows or 0),
                        "plain over fast, rows": whole * priced(plainly.calls) / (found.rows or 1),
                        "plain over fast, seconds": whole * longer / seconds,
                        "seconds a row, fast over plain": row[0] / theirs[0],
                        f"the same, {TOGETHER} images together": row[1] / theirs[0],
                        "a row with gradients over one without": gradient,
                        "seconds a row with gradients at that": at_that[0] / theirs[1],
                        f"the same with gradients at that, {TOGETHER} images together": at_that[1] / theirs[1],
                    }
                )
            figures |= {f"{model}, {kind}: {what}": median(one[what] for one in spent) for what in spent[0]}
    return figures


def gradient_price(clock: Clock, backbone: Backbone, calls: Sequence[Call], pairs: int = 9) -> float:
    """The seconds of network calls with gradients over those of the same calls without."""

    def seconds(call: Call, gradient: bool) -> float:
        return clock.timed(partial(bare, backbone, [(*call[:3], gradient)]))[1]

    chosen = [call for call in calls if call[3]][:pairs]
    return median(seconds(call, True) / seconds(call, False) for call in chosen)


def options(models: Sequence[str], checks: int, most: int, seeds: int, device: str | None) -> Figures:
    """Options against the default. Other seeds are no option; they show the spread of the values."""
    clock, figures = Clock(find_device(device)), Figures()
    for model in models:
        length = {"max_steps": checks * FIFTH[model]["check_every"]}
        shorter: dict[str, Any] = {"sampler": "dpm-solver++", "sampler_steps": FIFTH[model]["sampler_steps"] * 2 // 5}
        default = fifth(model, device, **length)
        chosen = [picture for group in memorized_and_new(model).values() for picture in group[:most]]
        targets = targets_of(chosen, default.backbone)
        together: dict[str, Any] = {"batch_size": len(targets)}
        variants: dict[str, tuple[Plan, dict[str, Any]]] = {
            "other seeds": (replace(default, seed=seeds), {}),
            "one image at a time": (default, {"batch_size": 1}),
            "64 rows at once": (default, {"micro_batch": 64}),
            "bfloat16": (fifth(model, device, dtype="bfloat16", **length), {}),
            "DPM-Solver++": (fifth(model, device, **length, **shorter), {}),
        }

        def search(plan: Plan, how: dict[str, Any], seed: int) -> list[Any]:
            return measure(replace(plan, seed=plan.seed + seed), targets, **{**together, **how})  # noqa: B023

        for name, variant in variants.items():
            found = clock.compared(partial(search, default, {}), partial(search, *variant), range(seeds))
            figures |= {f"{model}, default and {name}: {what}": value for what, value in found.items()}
    return figures


def network(repeats: int, device: str | None) -> Figures:
    """The pixel model's network takes images of any side that 8 divides."""
    clock, figures = Clock(find_device(device)), Figures()
    for model, sides in (("pixel", (16, 32, 64)), ("guided", (8,))):
        backbone = fifth(model, device).backbone
        null = backbone.condition("").null(1)
        channels = backbone.encode(torch.zeros(1, *backbone.image_shape, device=backbone.device)).shape[1]
        for side, rows in ((side, rows) for side in sides for rows in (1, 2, 4, 8, 16, 32)):
            x_t = torch.randn(rows, channels, side, side, device=backbone.device)
            t = backbone.schedule.draw(rows, torch.Generator().manual_seed(0)).to(backbone.device)
            for what, gradient in (("forward", False), ("forward and backward", True)):
                work = partial(bare, backbone, [(x_t, t, repeat(null, rows), gradient)])
                seconds = median(clock.timed(work)[1] for _ in range(repeats))
                figures[f"{model}, side {side}, {rows} rows at once: ms a row, {what}"] = 1000 * seconds / rows
    return figures


PARTS: dict[str, Callable[[bool, str | None], Figures]] = {
    "limit": lambda quick, device: limit(3 if quick else 9, 1 if quick else 9, device),
    "plain": lambda quick, device: against_plain(3 if quick else 20, 1 if quick else 3, device),
    "fast": lambda quick, device: against_fast(1 if quick else 5, device),
    "options": lambda quick, device: options(*((["guided"], 3, 1, 1) if quick else (list(FIFTH), 5, 2, 3)), device),
    "network": lambda quick, device: network(1 if quick else 5, device),
}


def main(arguments: Sequence[str] | None = None) -> None:
    known = parser(__doc__)
    known.add_argument("--quick", action="store_true", help="few pairs of short runs")
    known.add_argument("--device", help="cpu, cuda, ...; the default is CUDA if there is one")
    known.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    chosen = known.parse_args(arguments)
    torch.set_num_threads(1)
    figures = {part: PARTS[part](chosen.quick, chosen.device) for part in chosen.only}
    rows = (
        (part, name, f"{value:.3g}" if isinstance(value, float) else str(value))
        for part, values in figures.items()
        for name, value in values.items()
    )
    show(("part", "figure", "value"), rows, title=f"torch {torch.__version__}, one thread")
    write(chosen.json, {"torch": torch.__version__, "quick": chosen.quick, **figures})


if __name__ == "__main__":
    main()
