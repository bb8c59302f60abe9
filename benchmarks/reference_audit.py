"""How well InvMM separates the reference model's repeated pictures from held-out ones, over several seeds.

    python benchmarks/reference_audit.py                      # the demo's recipe, 3 seeds, about 10 minutes
    python benchmarks/reference_audit.py --recipe paper --per-dose 1 --held-out 1 --seeds 1

Prints, for each seed, the AUC of the most repeated pictures against held-out ones, and for each number of copies how
many pictures were replicated, their InvMM, and the median of the steps taken.
"""

import statistics
import time
from typing import Any

import torch

from benchmarks.common.script import parser, write
from invmm_eval import audit
from invmm_eval.recipe import Recipe
from invmm_eval.reference import COPIES, MICRO_BATCH, MODEL, THRESHOLD, choose, pictures, plain_samples
from invmm_eval.search.result import Status
from invmm_eval.statistics.ranking import auc


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--recipe", default="demo")
    arguments.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    arguments.add_argument("--similarity", default="pixel-cosine")
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--per-dose", type=int, default=3)
    arguments.add_argument("--held-out", type=int, default=6)
    arguments.add_argument("--batch-size", type=int, default=8)
    options = arguments.parse_args()
    chosen = choose(pictures(), each=options.per_dose, held_out=options.held_out)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; drawn: in {plain_samples()} plain samples")
    runs: list[dict[str, Any]] = []
    for seed in range(options.seeds):
        started = time.perf_counter()
        results = audit(
            MODEL,
            [picture.image for picture in chosen],
            similarity=options.similarity,
            recipe=options.recipe,
            settings={"threshold": THRESHOLD, **Recipe.parse(options.set)},
            seed=seed,
            batch_size=options.batch_size,
            micro_batch=MICRO_BATCH,
        )
        seconds, checks = time.perf_counter() - started, sum(result.seconds_checks for result in results)
        by_copies = {
            copies: [(result, p) for result, p in zip(results, chosen, strict=True) if p.copies == copies]
            for copies in (*COPIES, 0)
        }
        most, held_out = ([result.invmm for result, _ in by_copies[copies]] for copies in (COPIES[0], 0))
        area = auc(most, held_out)
        print(f"seed {seed}: AUC {area:.3f}, {seconds:.0f} s, {checks:.0f} s of it checks")
        for copies, group in by_copies.items():
            passed = [result for result, _ in group if result.status is Status.REPLICATED]
            values = ", ".join(f"{result.invmm:.3f}" for result in passed) or "-"
            steps = statistics.median(result.steps for result, _ in group)
            drawn = sum(picture.drawn or 0 for _, picture in group)
            print(
                f"  {copies:3d} copies: {len(passed)} of {len(group)} replicated, InvMM {values}; "
                f"median steps {steps:.0f}; drawn {drawn}"
            )
        rows = [{"copies": p.copies, "drawn": p.drawn, **r.record()} for r, p in zip(results, chosen, strict=True)]
        runs.append({"seed": seed, "auc": area, "seconds": seconds, "seconds_checks": checks, "results": rows})
        write(options.json, runs)


if __name__ == "__main__":
    main()
