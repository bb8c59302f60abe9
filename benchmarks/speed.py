"""How fast the measure is: against its own network, against the plain protocol, and with its options.

    python benchmarks/speed.py --quick --json speed.json     # few pairs of short runs
    python benchmarks/speed.py --only plain options

On the pixel model that ships with the package, and on a small guided Stable Diffusion whose prompt is searched. A value
"over" another is the median of ratios, each of two timings one right after the other:

limit        a step, and a whole audit, over the forward and backward passes that they make of the bare network
plain        the published protocol done plainly over ours: one image at a time, every check complete at all guidance
             scales; with equal random numbers, so that verdicts and values must agree
fast         the published protocol at full length, done plainly, over the recipe fast: rows, and seconds; what is not
             replicated is timed for a few periods of steps and a check, in proportion to all of them
options      what changes the arithmetic, over the default at equal seeds: time, verdicts and values, with those of
             other seeds
batch        images searched together: seconds per image and peak memory
workers      two processes of one thread over one: the ratio of images per hour
size         seconds of the network by the size of its images, and of a check by the number of sampler steps

But for the part fast, recipes are the published ones at a fifth of their length: checks come after 10 steps instead of
50 and have a fifth of the sampler steps, so that steps and checks cost in proportion what they do in a full audit.

On a CPU one thread is used and, except for the workers, the CPU time of the process is compared, which other processes
on the machine disturb least. On CUDA wall-clock time is compared.
"""

import math
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from benchmarks.common.counting import Counted, counted
from benchmarks.common.plain import plain, with_gradients
from benchmarks.common.plain_samples import similarities
from benchmarks.common.procedure import Setup
from benchmarks.common.script import parser, show, write
from invmm_eval.audits.pictures import prepare
from invmm_eval.audits.plan import load_backbone
from invmm_eval.device import find_device
from invmm_eval.models.backbone import Backbone
from invmm_eval.models.condition import repeat
from invmm_eval.recipe import RECIPES
from invmm_eval.reference import MODEL, Picture, choose, pictures
from invmm_eval.search.checks import Trial, check
from invmm_eval.search.criteria import AllSamples
from invmm_eval.search.memory import MicroBatch
from invmm_eval.search.result import Status
from invmm_eval.search.target import Target

T = TypeVar("T")


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

    def pairs(self, a: Callable[[], Any], b: Callable[[], Any], count: int) -> tuple[float, float, float]:
        """The medians of the seconds of a, of b, and of their ratios pair by pair."""
        took = [(self.timed(a)[1], self.timed(b)[1]) for _ in range(count)]
        a_all, b_all = zip(*took, strict=True)
        return statistics.median(a_all), statistics.median(b_all), statistics.median(x / y for x, y in took)


MODELS = {"pixel": MODEL, "guided": Path(__file__).parents[1] / "tests" / "data" / "stable-diffusion"}
FIFTH: dict[str, dict[str, Any]] = {
    "pixel": {"check_every": 10, "sampler_steps": 40, "threshold": 0.9},
    "guided": {"check_every": 10, "sampler_steps": 10, "threshold": 0.8},
}
"""A fifth of the published recipes, and similarities from which on these models' replicas are replicas."""


def memorized_and_new(model: str) -> tuple[list[Picture], list[Picture]]:
    """Pictures that were repeated in training, and some that were held out."""
    if model == "pixel":
        known = choose(pictures(), each=3, held_out=16)
        return known[:6], known[-16:]
    by_name = {picture.name: picture for picture in pictures()}
    return (
        [by_name[name] for name in ("pineapple", "beverage box")],
        [by_name[name] for name in ("couple with heart", "hamburger")],
    )


def planned(model: str, device: str | None, source: Any = None, dtype: str = "float32", **settings: Any) -> Setup:
    """The published recipe at a fifth of its length, with changes."""
    backbone = load_backbone(source or MODELS[model], device=device, dtype=dtype)
    return Setup(backbone, backbone.recipe.changed(**{**FIFTH[model], **settings}))


def targets_of(chosen: Sequence[Picture], backbone: Backbone) -> list[Target]:
    side = backbone.image_shape[1]
    return [
        Target(prepare(picture.image.reduce(picture.image.width // side), backbone.image_shape), picture.name)
        for picture in chosen
    ]


def bare(backbone: Backbone, counter: Counted) -> None:
    """The network alone on as many rows, in the same portions, with the same gradients."""
    channels, height, width = backbone.image_shape
    like = backbone.encode(torch.zeros(1, channels, height, width, device=backbone.device))
    null = backbone.condition("").null(1)

    def portions(sizes: list[int]) -> Iterator[tuple[Tensor, Tensor, dict[str, Tensor]]]:
        for count in sizes:
            x_t = torch.randn(count, *like.shape[1:], device=backbone.device)
            t = backbone.schedule.draw(count, torch.Generator().manual_seed(0)).to(backbone.device)
            yield x_t, t, {name: tensor.clone() for name, tensor in repeat(null, count).items()}

    for x_t, t, context in portions(counter.calls_with):
        inputs = [tensor.requires_grad_() for tensor in (x_t, *context.values())]
        torch.autograd.grad(backbone.predict_x0(x_t, t, context).sum(), inputs)
    with torch.no_grad():
        for x_t, t, context in portions(counter.calls_without):
            backbone.predict_x0(x_t, t, context)


def limit(pairs: int, audits: int, device: str | None) -> dict[str, float]:
    clock, figures = Clock(find_device(device)), {}
    for model in FIFTH:
        step = planned(model, device, max_steps=10, check_images=1, sampler_steps=1, guidance=(1.0,))
        audit = planned(model, device, max_steps=20)
        for name, plan, count in (("step", step, pairs), ("audit", audit, audits)):
            targets = targets_of(memorized_and_new(model)[1][:1], plan.backbone)
            counting, counter = counted(plan.backbone)
            replace(plan, backbone=counting).measure(targets)
            ours, network = partial(plan.measure, targets), partial(bare, plan.backbone, counter)
            _, _, figures[f"{model}: {name} over bare network"] = clock.pairs(ours, network, count)
    return figures


AS_PUBLISHED = (("pixel", False), ("guided", True))
"""Whether weights take gradients in the authors' script of that kind: frozen for pixels, not for Stable Diffusion."""


def against_plain(procedures: Sequence[tuple[str, bool]], checks: int, most: int, device: str | None) -> dict[str, Any]:
    clock = Clock(find_device(device))
    figures: dict[str, Any] = {}
    for model, learning in procedures:
        plan = planned(model, device, max_steps=checks * FIFTH[model]["check_every"])
        other = planned(model, device).backbone
        slow = with_gradients(other) if learning else other
        for kind, chosen in zip(("memorized", "new"), memorized_and_new(model), strict=True):
            ours, theirs, ratios = [], [], []
            for target in targets_of(chosen[:most], plan.backbone):
                results, seconds = clock.timed(partial(plan.measure, [target]))
                outcome, longer = clock.timed(partial(plain, replace(plan, backbone=slow), target))
                ours += results
                theirs.append(outcome)
                ratios.append(longer / seconds)
            agree = [(a.status, a.steps) == (b.status, b.steps) for a, b in zip(ours, theirs, strict=True)]
            differences = [abs((a.kl or 0) - b.kl) for a, b in zip(ours, theirs, strict=True)]
            name = f"{model}, weights {'with gradients' if learning else 'frozen'}, {kind}"
            figures |= {
                f"{name}: plain over ours": statistics.median(ratios),
                f"{name}: replicated": f"{sum(r.status is Status.REPLICATED for r in ours)} of {len(ours)}",
                f"{name}: verdicts that agree": f"{sum(agree)} of {len(ours)}",
                f"{name}: largest difference of KL": max(differences),
            }
    return figures


def against_fast(periods: int, most: int, device: str | None) -> dict[str, Any]:
    """The published protocol at full length, done plainly, over the recipe fast without its pool of plain samples."""
    clock, figures = Clock(find_device(device)), {}
    for model in FIFTH:
        backbone = load_backbone(MODELS[model], device=device)
        published = backbone.recipe.changed(threshold=FIFTH[model]["threshold"])
        fast = RECIPES["fast"](published)
        ours, (first, *_) = Setup(backbone, fast.changed(plain=0)), targets_of(memorized_and_new(model)[0], backbone)
        ours.measure([first])
        draw = partial(similarities, backbone, first.image[None], ours.similarity, samples=fast.plain)
        pool = partial(draw, steps=fast.sampler_steps, sampler=fast.sampler)
        figures[f"{model}: seconds of the pool of {fast.plain} plain samples"] = clock.timed(pool)[1]
        for kind, chosen in zip(("memorized", "new"), memorized_and_new(model), strict=True):
            rows, seconds = [], []
            for target in targets_of(chosen[:most], backbone):
                (result,), took = clock.timed(partial(ours.measure, [target]))
                counting, counter = counted(backbone)
                part = published.changed(max_steps=periods * published.check_every)
                outcome, longer = clock.timed(partial(plain, Setup(counting, part), target))
                whole = 1 if outcome.status is Status.REPLICATED else published.max_steps / part.max_steps
                rows.append((result.rows or 0, counter.rows * whole))
                seconds.append((took, longer * whole))
            fewer, sooner = (statistics.median(b / a for a, b in pairs) for pairs in (rows, seconds))
            figures |= {
                f"{model}, {kind}: rows of fast": statistics.median(a for a, _ in rows),
                f"{model}, {kind}: seconds of fast": statistics.median(a for a, _ in seconds),
                f"{model}, {kind}: seconds of plain": statistics.median(b for _, b in seconds),
                f"{model}, {kind}: plain over fast, rows": fewer,
                f"{model}, {kind}: plain over fast, seconds": sooner,
                f"{model}, {kind}: seconds of fast over those of its rows in plain": fewer / sooner,
            }
    return figures


def channels_last(path: Path, device: str | None) -> Any:
    pipeline = DiffusionPipeline.from_pretrained(path).to(find_device(device))
    pipeline.unet.to(memory_format=torch.channels_last)
    return pipeline


def options(models: Sequence[str], checks: int, most: int, seeds: int, device: str | None) -> dict[str, Any]:
    """Options against the default. Other seeds are no option; they show the spread of the values."""
    clock = Clock(find_device(device))
    figures: dict[str, Any] = {}
    for model in models:
        shorter: dict[str, Any] = {"sampler": "dpm-solver++", "sampler_steps": FIFTH[model]["sampler_steps"] * 2 // 5}
        max_steps = checks * FIFTH[model]["check_every"]
        default = planned(model, device, max_steps=max_steps)
        chosen = [picture for group in memorized_and_new(model) for picture in group[:most]]
        targets = targets_of(chosen, default.backbone)
        variants: dict[str, tuple[Setup, int | None]] = {
            "other seeds": (replace(default, seed=seeds), None),
            "64 rows at once": (default, 64),
            "channels_last": (planned(model, device, channels_last(MODELS[model], device), max_steps=max_steps), None),
            "bfloat16": (planned(model, device, dtype="bfloat16", max_steps=max_steps), None),
            "DPM-Solver++": (planned(model, device, max_steps=max_steps, **shorter), None),
        }
        for name, (plan, rows) in variants.items():
            expected, found, ratios = [], [], []
            for seed in range(seeds):
                base, changed = replace(default, seed=seed), replace(plan, seed=plan.seed + seed)
                results, seconds = clock.timed(partial(base.measure, targets, batch_size=len(targets)))
                others, other_seconds = clock.timed(
                    partial(changed.measure, targets, batch_size=len(targets), micro_batch=rows)
                )
                expected += results
                found += others
                ratios.append(seconds / other_seconds)
            both = [
                (a.invmm, b.invmm)
                for a, b in zip(expected, found, strict=True)
                if a.status is b.status is Status.REPLICATED
            ]
            agree = sum(a.status is b.status for a, b in zip(expected, found, strict=True))
            figures |= {
                f"{model}, {name}: default over it": statistics.median(ratios),
                f"{model}, {name}: verdicts that agree": f"{agree} of {len(found)}",
                f"{model}, {name}: median factor of InvMM": statistics.median(
                    [max(a / b, b / a) for a, b in both] or [math.nan]
                ),
            }
    return figures


def portion(batch: int, images: int, steps: int, device: str | None) -> tuple[float, float]:
    """Seconds an image and peak memory in GiB, in a process of its own."""
    torch.set_num_threads(1)
    plan = planned("pixel", device, max_steps=steps, check_every=steps, check_images=2)
    targets = targets_of(memorized_and_new("pixel")[1], plan.backbone)
    plan.measure(targets[:1])
    start = time.perf_counter()
    plan.measure(targets[:images], batch_size=batch)
    seconds = (time.perf_counter() - start) / images
    if plan.backbone.device.type == "cuda":
        return seconds, torch.cuda.max_memory_allocated() / 2**30
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def batches(sizes: Sequence[int], steps: int, device: str | None) -> dict[str, float]:
    figures: dict[str, float] = {}
    for size in sizes:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            seconds, memory = pool.submit(portion, size, max(sizes), steps, device).result()
        figures |= {f"{size} together, seconds an image": seconds, f"{size} together, GiB": memory}
    return figures


def workers(pairs: int, images: int, steps: int, device: str | None) -> dict[str, float]:
    ratios = []
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        for _ in range(pairs):
            alone = pool.submit(portion, 2, images, steps, device).result()[0]
            both = [pool.submit(portion, 2, images, steps, device) for _ in range(2)]
            ratios.append(2 * alone / max(future.result()[0] for future in both))
    return {"two workers over one": statistics.median(ratios)}


def sizes(repeats: int, device: str | None) -> dict[str, float]:
    """The pixel model's network takes images of any side that 8 divides."""
    plan = planned("pixel", device)
    backbone, clock, figures = plan.backbone, Clock(plan.backbone.device), {}
    for side in (16, 32, 64):
        x_t, t = torch.randn(8, 3, side, side, device=backbone.device), torch.full((8,), 500, device=backbone.device)

        def forward(x_t: Tensor = x_t, t: Tensor = t) -> None:
            with torch.no_grad():
                backbone.predict_x0(x_t, t, {})

        def backward(x_t: Tensor = x_t, t: Tensor = t) -> None:
            leaf = x_t.clone().requires_grad_()
            torch.autograd.grad(backbone.predict_x0(leaf, t, {}).sum(), leaf)

        without, with_gradient, _ = clock.pairs(forward, backward, repeats)
        figures[f"side {side}: ms a row, forward"] = 1000 * without / 8
        figures[f"side {side}: ms a row, forward and backward"] = 1000 * with_gradient / 8
    target = targets_of(memorized_and_new("pixel")[1][:1], backbone)[0]
    pixels = target.image[None].to(backbone.device) / 255
    noise = torch.randn(8, 3, 32, 32, device=backbone.device)
    embedded = plan.similarity.embed(pixels)
    trial = Trial(noise, {}, {}, embedded, plan.recipe.guidance, backbone.encode(pixels))
    for steps in (5, 10, 20):
        recipe = plan.recipe.changed(sampler_steps=steps)
        criterion, micro_batch = AllSamples(recipe, threshold=0.9), MicroBatch(32)
        first = partial(check, backbone, plan.similarity, recipe, criterion, micro_batch, [trial])
        whole = partial(first, complete=True)
        complete, failing, _ = clock.pairs(whole, first, repeats)
        figures[f"{steps} sampler steps: seconds of a complete check"] = complete
        figures[f"{steps} sampler steps: seconds of a failing one"] = failing
    return figures


def main(arguments: Sequence[str] | None = None) -> None:
    known = parser(__doc__)
    known.add_argument("--quick", action="store_true", help="few pairs of short runs")
    known.add_argument("--device", help="cpu, cuda, ...; the default is CUDA if there is one")
    known.add_argument("--only", nargs="+", metavar="PART", help="some of the parts")
    chosen = known.parse_args(arguments)
    torch.set_num_threads(1)
    quick, device = chosen.quick, chosen.device
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "limit": lambda: limit(3 if quick else 9, 1 if quick else 9, device),
        "plain": lambda: (
            against_plain(AS_PUBLISHED, 3, 1, device)
            if quick
            else against_plain((*AS_PUBLISHED, ("pixel", True)), 20, 3, device)
        ),
        "fast": lambda: against_fast(1 if quick else 4, 1 if quick else 5, device),
        "options": lambda: options(("guided",), 3, 1, 1, device) if quick else options(tuple(FIFTH), 5, 2, 3, device),
        "batch": lambda: batches((1, 4) if quick else (1, 2, 4, 8, 16), 5 if quick else 25, device),
        "workers": lambda: workers(1 if quick else 5, 2 if quick else 4, 5 if quick else 25, device),
        "size": lambda: sizes(1 if quick else 5, device),
    }
    if unknown := sorted(set(chosen.only or ()) - parts.keys()):
        known.error(f"there is no part {unknown[0]}; there are {', '.join(parts)}")
    figures = {part: parts[part]() for part in chosen.only or parts}
    rows = (
        (part, name, f"{value:.3g}" if isinstance(value, float) else str(value))
        for part, values in figures.items()
        for name, value in values.items()
    )
    show(("part", "figure", "value"), rows, title=f"torch {torch.__version__}, one thread")
    write(chosen.json, {"torch": torch.__version__, "quick": quick, **figures})


if __name__ == "__main__":
    main()
