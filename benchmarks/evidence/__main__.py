"""Make the evidence: train missing models, count, audit, test every claim, and write docs/lab/evidence.md.

    python -m benchmarks.evidence
    python -m benchmarks.evidence --sets digits --claims screen whole-set
    python -m benchmarks.evidence --photographs cifar10.parquet

Needs the extras ``dev`` and ``reference``. What is made is kept in ``runs/evidence``. Photographs come from a Parquet
file of CIFAR-10's training pictures, as published at huggingface.co/datasets/uoft-cs/cifar10; without it that set is
left out.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DModel

from benchmarks.common.script import parser
from benchmarks.evidence.audits import PROCEDURES
from benchmarks.evidence.case import MEMORIZED, Budget, Case
from benchmarks.evidence.claim import Claim
from benchmarks.evidence.claims import closed_form, peers, screen, share, whole_set
from benchmarks.evidence.data import DOSES, SOURCES, photograph_source
from benchmarks.evidence.models import TRAININGS
from benchmarks.evidence.page import verdict, write

ROOT = Path(__file__).parents[2]
CLAIMS: Mapping[str, Callable[[Sequence[Case], Path], Claim]] = {
    "screen": screen.claim,
    "share": share.claim,
    "peers": peers.claim,
    "whole-set": whole_set.claim,
    "closed-form": closed_form.claim,
}


def described(case: Case) -> dict[str, Any]:
    """A set and its model."""
    return {
        "name": case.name,
        "images": len(case.data.images),
        "memorized": int(case.memorized.sum()),
        "shape": "x".join(map(str, case.data.images.shape[1:])),
        "rows": int(case.data.copies.sum()),
        "parameters": UNet2DModel.from_pretrained(case.folder, subfolder="unet").num_parameters(),
        "steps": case.training.steps,
        "samples": case.truth.samples,
        "held_out": case.truth.held_out,
        "threshold": case.truth.threshold,
    }


def gathered(root: Path, docs: Path, budget: Budget, names: Sequence[str] = tuple(CLAIMS)) -> Mapping[str, Any]:
    """All facts of the page, with its figures written to ``docs``."""
    if left_out := budget.trainings.keys() - set(budget.sets):
        print(f"The set {', '.join(left_out)} is left out: give its file (--photographs).")
    cases = [Case(root, name, budget) for name in budget.sets]
    claims = []
    for name in names:
        claim = CLAIMS[name](cases, docs / "evidence")
        print(f"{claim.title}: {verdict(claim.held)}")
        claims.append({**asdict(claim), "held": claim.held})
    return {
        "claims": claims,
        "sets": [described(case) for case in cases],
        "doses": list(DOSES),
        "per_dose": budget.per_dose,
        "memorized": MEMORIZED,
        "versions": {"torch": version("torch")},
    }


def main() -> None:
    known = parser(__doc__, json=False)
    known.add_argument("--root", type=Path, default=ROOT / "runs" / "evidence", help="where all that is made is kept")
    known.add_argument("--docs", type=Path, default=ROOT / "docs" / "lab", help="where evidence.md and its figures go")
    known.add_argument("--sets", nargs="+", choices=list(TRAININGS), default=list(TRAININGS))
    known.add_argument("--claims", nargs="+", choices=list(CLAIMS), default=list(CLAIMS))
    known.add_argument("--compare", action="store_true", help="also run the searches by dose and published: hours")
    known.add_argument("--photographs", type=Path, help="Parquet file with a column image or img")
    options = known.parse_args()
    torch.set_num_threads(1)
    if options.photographs:
        SOURCES["photographs"] = photograph_source(options.photographs)
    procedures = PROCEDURES if options.compare else PROCEDURES[:1]
    budget = Budget({name: TRAININGS[name] for name in options.sets}, procedures)
    print(write(gathered(options.root, options.docs, budget, options.claims), options.docs))


if __name__ == "__main__":
    main()
