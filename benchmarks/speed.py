"""How fast the measure is: against its own network, against the plain procedure, and as images and workers are added.

    python benchmarks/speed.py --quick --json speed.json     # under 5 minutes on 2 CPU cores
    python benchmarks/speed.py

Four questions, each answered by a ratio of two timings taken in turn, A B A B ..., of which the median is told:

limit        a step, and a whole audit, over the bare network's forward and backward passes that they ask for
plain        the paper's procedure done plainly over ours: one image at a time, gradients to the weights too, every
             check complete at all guidance scales; with equal random numbers, so that verdicts and values must agree
batch        images searched together: seconds an image and peak memory
workers      two processes of one thread over one: how many times the images an hour

On a CPU all is done with one thread, and but for the workers it is the process's own CPU time that is compared, which
neighbours on the machine disturb least. On CUDA it is the time of day.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Generator, Tensor, nn

from invmm_eval.auditing import Plan, load_backbone, make_plan
from invmm_eval.backbone import Backbone
from invmm_eval.condition import Condition, Context, repeat
from invmm_eval.demo import choose
from invmm_eval.images import Target, prepare
from invmm_eval.inversion import _generator as generator
from invmm_eval.inversion import invert
from invmm_eval.noise import Noise
from invmm_eval.recipe import Recipe
from invmm_eval.reference import MODEL, pictures
from invmm_eval.result import Result, Status
from invmm_eval.schedule import broadcast
from invmm_eval.weight import AdaptiveWeight


class Counted:
    """A backbone that counts what its network is asked: rows with a gradient, and rows without."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self.stepped: list[int] = []
        self.sampled: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backbone, name)

    def predict_x0(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        (self.stepped if torch.is_grad_enabled() else self.sampled).append(len(x_t))
        return self._backbone.predict_x0(x_t, t, context)


@dataclass(frozen=True)
class Outcome:
    """What the plain procedure says of an image."""

    status: Status
    kl: float
    steps: int


def plain(backbone: Backbone, target: Target, plan: Plan) -> Outcome:
    """The paper's procedure, straight from its description; nothing is saved anywhere."""
    recipe, similarity, seed = plan.recipe, plan.similarity, plan.seed
    pixels = target.image.to(backbone.device)[None].float() / 255
    x_0, features = backbone.encode(pixels), similarity.embed(pixels)
    q, condition = plan.noise(x_0[0]), backbone.condition(target.caption)
    steps, checks = (generator(seed, target.digest, purpose) for purpose in ("steps", "checks"))
    step_contexts, check_contexts = (
        generator(seed, target.digest, purpose, backbone.device) for purpose in ("step contexts", "check contexts")
    )
    adam = torch.optim.Adam([*q.parameters().values(), *condition.parameters().values()], lr=recipe.learning_rate)
    weight, losses = AdaptiveWeight(recipe), []
    for step in range(1, recipe.max_steps + 1):
        n = q.rsample(recipe.draws, steps)
        t = backbone.schedule.draw(recipe.draws, steps).to(backbone.device)
        context = condition.rsample(recipe.draws, step_contexts)
        alpha_t, sigma_t = (broadcast(level, n) for level in backbone.schedule(t))
        fit = (backbone.predict_x0(alpha_t * x_0 + sigma_t * n, t, context) - x_0).square().mean()
        adam.zero_grad()
        torch.autograd.backward(fit + weight.value * q.kl())
        adam.step()
        losses.append(fit.item())
        if step % recipe.check_every:
            weight.grow()
            continue
        window = losses[-recipe.window :]
        weight.check(sum(window) / len(window))
        if replicated(backbone, q, condition, features, plan, checks, check_contexts):
            return Outcome(Status.REPLICATED, q.kl().item(), step)
    return Outcome(Status.EXHAUSTED, q.kl().item(), recipe.max_steps)


@torch.no_grad()
def replicated(
    backbone: Backbone,
    q: Noise,
    condition: Condition,
    features: Tensor,
    plan: Plan,
    checks: Generator,
    contexts: Generator,
) -> bool:
    """Whether all K samples pass at some scale; all are made, at all scales."""
    recipe, similarity = plan.recipe, plan.similarity
    noise = q.rsample(recipe.check_images, checks)
    told = condition.rsample(1 if recipe.shared_context else recipe.check_images, contexts)
    if recipe.shared_context:
        told = repeat(told, recipe.check_images)
    null = condition.null(recipe.check_images)
    least = [
        similarity.compare(similarity.embed(denoised(backbone, noise, told, null, scale, recipe)), features).min()
        for scale in recipe.guidance
    ]
    return max(least).item() >= plan.threshold


def denoised(backbone: Backbone, x_t: Tensor, context: Context, null: Context, scale: float, recipe: Recipe) -> Tensor:
    """Deterministic DDIM, as its paper writes it."""
    for t, s in pairwise(backbone.schedule.grid(recipe.sampler_steps)):
        times = t.expand(len(x_t))
        x_0 = backbone.predict_x0(x_t, times, context)
        if scale != 1:
            unconditional = backbone.predict_x0(x_t, times, null)
            x_0 = unconditional + scale * (x_0 - unconditional)
        if backbone.clip is not None:
            x_0 = x_0.clamp(-backbone.clip, backbone.clip)
        (alpha_t, sigma_t), (alpha_s, sigma_s) = backbone.schedule(t), backbone.schedule(s)
        x_t = alpha_s * x_0 + sigma_s * (x_t - alpha_t * x_0) / sigma_t
    return backbone.decode(x_t)


def with_gradients(backbone: Backbone) -> Backbone:
    """The same network, its weights taking gradients as they do where nobody freezes them."""
    for part in vars(backbone).values():
        if isinstance(part, nn.Module):
            part.requires_grad_(True)
    return backbone


class Clock:
    """Seconds of work on a device: of the process on the CPU, of the day on CUDA."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            return time.perf_counter()
        return time.process_time()

    def pairs(self, a: Callable[[], Any], b: Callable[[], Any], count: int) -> tuple[float, float, float]:
        """The medians of a, of b, and of their ratios pair by pair."""
        took: list[tuple[float, float]] = []
        for _ in range(count):
            start = self.now()
            a()
            between = self.now()
            b()
            took.append((between - start, self.now() - between))
        a_all, b_all = zip(*took, strict=True)
        return statistics.median(a_all), statistics.median(b_all), statistics.median(x / y for x, y in took)


def reference(settings: dict[str, Any], device: str | None) -> tuple[Plan, list[Target]]:
    """The published recipe, shortened, on the reference model; its pictures, memorized and held out in turn."""
    backbone = load_backbone(MODEL, device=device)
    settings = {"threshold": 0.9, **settings}
    plan = make_plan(backbone, MODEL, similarity="pixel-cosine", recipe="paper", settings=settings)
    known = choose(pictures(), per_dose=3, held_out=16)
    order = [picture for pair in zip(known[:6], known[-6:], strict=True) for picture in pair] + known[6:-6]
    return plan, [Target(prepare(picture.image, backbone.image_shape), picture.name) for picture in order]


def measured(plan: Plan, targets: Sequence[Target], backbone: Backbone | None = None, **options: Any) -> list[Result]:
    found = invert(
        backbone or plan.backbone, targets, plan.similarity, plan.noise, recipe=plan.recipe, seed=plan.seed, **options
    )
    return sorted(found, key=lambda result: result.index)


def bare(backbone: Backbone, asked: Counted) -> None:
    """The network alone on as many rows, in the same portions."""
    channels, height, width = backbone.image_shape
    like = backbone.encode(torch.zeros(1, channels, height, width, device=backbone.device))

    def portions(sizes: list[int]) -> Iterator[tuple[Tensor, Tensor]]:
        for count in sizes:
            x_t = torch.randn(count, *like.shape[1:], device=backbone.device)
            yield x_t, backbone.schedule.draw(count, torch.Generator().manual_seed(0)).to(backbone.device)

    for x_t, t in portions(asked.stepped):
        x_t.requires_grad_()
        torch.autograd.grad(backbone.predict_x0(x_t, t, {}).sum(), x_t)
    with torch.no_grad():
        for x_t, t in portions(asked.sampled):
            backbone.predict_x0(x_t, t, {})


def limit(pairs: int, device: str | None) -> dict[str, float]:
    plan, targets = reference({"max_steps": 10, "check_every": 10, "check_images": 1, "sampler_steps": 1}, device)
    whole, _ = reference({"max_steps": 20, "check_every": 10, "sampler_steps": 50}, device)
    clock, figures = Clock(plan.backbone.device), {}
    for name, part in (("step", plan), ("audit", whole)):
        asked = Counted(part.backbone)
        measured(part, targets[1:2], asked)
        ours, network = partial(measured, part, targets[1:2]), partial(bare, part.backbone, asked)
        _, _, figures[f"{name} over bare network"] = clock.pairs(ours, network, pairs)
    return figures


def against_plain(images: int, max_steps: int, device: str | None) -> dict[str, Any]:
    plan, targets = reference({"max_steps": max_steps}, device)
    targets = targets[:images]
    slow = with_gradients(load_backbone(MODEL, device=device))
    clock = Clock(plan.backbone.device)
    start = clock.now()
    ours = measured(plan, targets, batch_size=images)
    ours_seconds = clock.now() - start
    start = clock.now()
    theirs = [plain(slow, target, plan) for target in targets]
    plain_seconds = clock.now() - start
    return {
        "plain over ours": plain_seconds / ours_seconds,
        "ours, seconds": ours_seconds,
        "plain, seconds": plain_seconds,
        "images": images,
        "most steps": max_steps,
        "replicated": sum(result.status is Status.REPLICATED for result in ours),
        "verdicts that agree": sum(
            (a.status, a.steps) == (b.status, b.steps) for a, b in zip(ours, theirs, strict=True)
        ),
        "largest difference of KL": max(abs((a.kl or 0) - b.kl) for a, b in zip(ours, theirs, strict=True)),
    }


def portion(batch: int, images: int, steps: int, device: str | None) -> tuple[float, float]:
    """Seconds an image and peak memory in GiB, in a process of its own."""
    torch.set_num_threads(1)
    plan, targets = reference({"max_steps": steps, "check_every": steps, "check_images": 2}, device)
    measured(plan, targets[:1])
    start = time.perf_counter()
    measured(plan, targets[-images:], batch_size=batch)
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few pairs of short runs")
    parser.add_argument("--device", help="cpu, cuda, ...; CUDA is taken where there is one")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    torch.set_num_threads(1)
    quick, device = options.quick, options.device
    figures = {
        "limit": limit(3 if quick else 9, device),
        "plain": against_plain(2 if quick else 6, 50 if quick else 300, device),
        "batch": batches((1, 4) if quick else (1, 2, 4, 8, 16), 5 if quick else 25, device),
        "workers": workers(1 if quick else 5, 2 if quick else 4, 5 if quick else 25, device),
    }
    table = Table("part", "figure", "value", title=f"torch {torch.__version__}, one thread")
    for part, values in figures.items():
        for name, value in values.items():
            table.add_row(part, name, f"{value:.3g}" if isinstance(value, float) else str(value))
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps({"torch": torch.__version__, "quick": quick, **figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
