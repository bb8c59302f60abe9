"""How well InvMM tells the reference model's repeated pictures from held-out ones, over several seeds.

    python benchmarks/reference_audit.py                      # the demo's recipe, 3 seeds, about 10 minutes
    python benchmarks/reference_audit.py --recipe paper --per-dose 1 --held-out 1 --seeds 1

Prints a table and, with --json, writes it: for each seed the AUC of the most repeated pictures against held-out ones,
and for each dose how many were replicated, their InvMM, and the steps taken.
"""

import argparse
import json
import math
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from invmm_eval.audits.auditing import load_backbone, make_plan
from invmm_eval.audits.images import Source
from invmm_eval.cli.progress import Bar
from invmm_eval.recipe import Recipe
from invmm_eval.reference import COPIES, MICRO_BATCH, MODEL, THRESHOLD, choose, pictures, plain_samples
from invmm_eval.search.result import Result, Status
from invmm_eval.statistics.ranking import auc


def audit(options: argparse.Namespace, seed: int, console: Console) -> dict[str, Any]:
    chosen = choose(pictures(), each=options.per_dose, held_out=options.held_out)
    plan = make_plan(
        load_backbone(MODEL),
        MODEL,
        similarity=options.similarity,
        recipe=options.recipe,
        settings={"threshold": THRESHOLD, **Recipe.parse(options.set)},
        seed=seed,
    )
    started = time.perf_counter()
    with Bar(len(chosen), console) as bar:
        sources = [Source(picture.code, picture.image) for picture in chosen]
        results = sorted(
            bar.over(plan.run(sources, batch_size=options.batch_size, micro_batch=MICRO_BATCH, on_step=bar.on_step)),
            key=lambda r: r.index,
        )
    doses = {}
    for dose in (*COPIES, 0):
        group = [r for r, p in zip(results, chosen, strict=True) if p.copies == dose]
        doses[dose] = described(group) | {"drawn": sum(p.drawn for p in chosen if p.copies == dose)}
    most, held_out = ([r for r, p in zip(results, chosen, strict=True) if p.copies == d] for d in (COPIES[0], 0))
    return {
        "seed": seed,
        "recipe": plan.recipe.name,
        "similarity": plan.similarity.name,
        "threshold": plan.threshold,
        "auc": auc([r.invmm for r in most], [r.invmm for r in held_out]),
        "seconds": time.perf_counter() - started,
        "seconds_checks": sum(result.seconds_checks for result in results),
        "doses": doses,
    }


def described(group: list[Result]) -> dict[str, Any]:
    return {
        "images": len(group),
        "replicated": sum(result.status is Status.REPLICATED for result in group),
        "invmm": [result.invmm if math.isfinite(result.invmm) else None for result in group],
        "kl": [result.kl for result in group],
        "similarity": [result.similarity for result in group],
        "steps": [result.steps for result in group],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="demo")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--similarity", default="pixel-cosine")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--per-dose", type=int, default=3)
    parser.add_argument("--held-out", type=int, default=6)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    console = Console(stderr=True)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; drawn: in {plain_samples()} plain samples")
    runs = []
    for seed in range(options.seeds):
        run = audit(options, seed, console)
        runs.append(run)
        print(f"seed {seed}: AUC {run['auc']:.3f}, {run['seconds']:.0f} s, {run['seconds_checks']:.0f} s of it checks")
        for dose, group in run["doses"].items():
            values = ", ".join("-" if value is None else f"{value:.3f}" for value in group["invmm"])
            print(
                f"  {dose:3d} copies: {group['replicated']} of {group['images']} replicated, InvMM {values}; "
                f"median steps {statistics.median(group['steps']):.0f}; drawn {group['drawn']}"
            )
        if options.json:
            options.json.write_text(json.dumps(runs, indent=1) + "\n")


if __name__ == "__main__":
    main()
