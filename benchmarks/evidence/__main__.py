"""Make the evidence: train missing models, count, audit, test every claim, and write docs/lab/evidence.md.

    python -m benchmarks.evidence

Needs the extras ``dev`` and ``reference``. What is made is kept in ``runs/evidence``.
"""

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DModel
from rich.console import Console

from benchmarks.common.procedure import Procedure
from benchmarks.evidence.audits import PROCEDURES, grouped
from benchmarks.evidence.case import FULL, Budget, Case
from benchmarks.evidence.claim import Claim
from benchmarks.evidence.claims import closed_form, detectors, dose, expected, membership, stability, training, weights
from benchmarks.evidence.data import DOSES
from benchmarks.evidence.page import verdict, write

ROOT = Path(__file__).parents[2]
CLAIMS: tuple[Callable[[Sequence[Case], Sequence[Procedure], Path], Claim], ...] = (
    dose.claim,
    training.claim,
    membership.claim,
    detectors.claim,
    weights.claim,
    closed_form.claim,
    stability.claim,
    expected.claim,
)


def described(case: Case, procedures: Sequence[Procedure]) -> dict[str, Any]:
    """A set and its model, with each steady image's copies, count and values."""
    audits = {procedure.name: case.over_seeds(procedure) for procedure in procedures}
    values = {
        name: [[row.value if row.value < math.inf else None for row in group] for group in grouped(found)]
        for name, found in audits.items()
    }
    return {
        "name": case.name,
        "images": len(case.data.images),
        "shape": "x".join(map(str, case.data.images.shape[1:])),
        "rows": int(case.data.copies.sum()),
        "parameters": UNet2DModel.from_pretrained(case.folder, subfolder="unet").num_parameters(),
        "steps": case.budget.trainings[case.name].steps,
        "held_out": case.truth.held_out,
        "threshold": case.truth.threshold,
        "steady": [
            {
                "image": index,
                "copies": int(case.data.copies[index]),
                "counted": int(case.truth.counts[index]),
                "nats": {name: groups[place] for name, groups in values.items()},
            }
            for place, index in enumerate(case.steady)
        ],
    }


def gathered(
    root: Path, docs: Path, budget: Budget = FULL, procedures: Sequence[Procedure] = PROCEDURES
) -> Mapping[str, Any]:
    """All facts of the page, with its figures written to ``docs``."""
    console = Console(stderr=True)
    cases = [Case(root, name, budget) for name in budget.trainings]
    claims = []
    for test in CLAIMS:
        claim = test(cases, procedures, docs / "evidence")
        console.print(f"{claim.title}: {verdict(claim.held)}")
        claims.append({**asdict(claim), "held": claim.held})
    return {
        "claims": claims,
        "sets": [described(case, procedures) for case in cases],
        "procedures": [{"name": procedure.name, "recipe": procedure.recipe.name} for procedure in procedures],
        "doses": list(DOSES),
        "per_dose": budget.per_dose,
        "samples": budget.samples,
        "versions": {"torch": version("torch")},
    }


def main() -> None:
    """Make everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=ROOT / "runs" / "evidence", help="where all that is made is kept")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs" / "lab", help="where evidence.md and its figures go")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(write(gathered(options.root, options.docs), options.docs))


if __name__ == "__main__":
    main()
