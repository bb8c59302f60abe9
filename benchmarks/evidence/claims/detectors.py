"""Other detectors of memorization on the same images: how well they separate them, and their cost."""

from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.baselines import caption_magnitude, sampled
from benchmarks.common.counting import counted
from benchmarks.common.measures import auc, tpr
from benchmarks.common.procedure import Procedure
from benchmarks.evidence.audits import BATCH
from benchmarks.evidence.case import Case
from benchmarks.evidence.claim import Claim, Finding, Table, no_worse
from benchmarks.evidence.detectors import MEMBERSHIP, NEAREST, Scored, judged
from benchmarks.evidence.keep import kept
from invmm_eval.audits.plan import load_backbone
from invmm_eval.similarity.pixel_cosine import PixelCosine

GUIDED = Path(__file__).parents[3] / "tests" / "data" / "stable-diffusion"
"""A text-guided model of benchmarks/families.py, six of whose pictures were repeated 64 times."""
GUIDANCE = 3.0
GUIDED_THRESHOLD = 0.8
CAPTION = "caption's magnitude (Wen)"
UNCAPTIONED = 64
"""Samples that the text-guided model draws without a caption."""


@dataclass(frozen=True)
class Performance:
    """How well a detector separates images, and its network evaluations per image."""

    auc: float
    tpr: float
    evaluations: float

    @property
    def cells(self) -> tuple[str, str, str]:
        """For a table."""
        return f"{self.auc:.3f}", f"{self.tpr:.2f}", f"{self.evaluations:,.0f}"


def claim(cases: Sequence[Case], procedures: Sequence[Procedure], pictures: Path) -> Claim:  # noqa: ARG001
    """AUC, TPR at 1 % FPR and network evaluations, averaged over the sets; and on a text-guided model."""
    by_name: dict[str, list[Performance]] = {}
    for case in cases:
        images, found = judged(case, procedures)
        for name, one in found.items():
            by_name.setdefault(name, []).append(_performance(one, case.memorized(images).tolist()))
    means = {
        name: Performance(*np.mean([astuple(one) for one in ones], axis=0).tolist()) for name, ones in by_name.items()
    }
    guided, copied = _guided(cases[0], procedures) if cases[0].budget.guided else ({}, 0)
    findings = [
        finding
        for procedure in procedures
        for finding in (
            *_against(procedure.name, means, max(MEMBERSHIP, key=lambda name: means[name].auc)),
            *_against(procedure.name, means, NEAREST),
            *(_against(f"{procedure.name}, text-guided", guided, CAPTION) if guided else ()),
        )
    ]
    columns = ("detector", "AUC", "TPR at 1 % FPR", "network evaluations an image")
    on_guided = (
        "On the text-guided model, given the captions. Its repeated pictures are most of its training rows: without a "
        f"caption {copied} of {UNCAPTIONED} samples are copies of them, so that a caption of theirs moves the estimate "
        "least, against what the magnitude supposes"
    )
    tables = [
        Table(columns, tuple((name, *one.cells) for name, one in scores.items()), caption)
        for scores, caption in ((means, "Averaged over the sets"), (guided, on_guided))
        if scores
    ]
    return Claim(
        "detectors",
        "It separates memorized images no worse than other detectors do",
        "Images that came back in plain sampling against all others that were audited. An evaluation is one row "
        "through the network, one with gradients counted three times. The plain samples of the nearest-neighbour "
        f"detector, {cases[0].budget.attack}, serve all images of a model at once, so its price an image falls with "
        "their number; and as the truth itself is such a count, it is the strongest there can be.",
        tuple(findings),
        tuple(tables),
    )


def _performance(found: Scored, labels: Sequence[bool]) -> Performance:
    return Performance(auc(found.scores, labels), tpr(found.scores, labels), found.evaluations)


def _against(name: str, performances: dict[str, Performance], rival: str) -> list[Finding]:
    ours, theirs, what = performances[name], performances[rival], f"{name} against {rival}"
    return [
        no_worse(f"{what}: AUC", ours.auc, theirs.auc),
        no_worse(f"{what}: TPR at 1 % FPR", ours.tpr, theirs.tpr, digits=2),
    ]


def _guided(case: Case, procedures: Sequence[Procedure]) -> tuple[dict[str, Performance], int]:
    """The same on the text-guided model: six repeated pictures against single-copy and held-out ones.

    And how many of its samples without a caption are copies of the repeated ones.
    """
    count = case.budget.guided

    def find() -> Any:
        from benchmarks.families import captioned, data, pixels

        known = data()
        targets = captioned([*known.repeated[:count], *known.single[:count], *known.held_out[:count]])
        labels = [place < count for place in range(len(targets))]
        with_caption = load_backbone(GUIDED, device="cpu", backbone_options={"prompt_mode": "caption"})
        found = {}
        for procedure in procedures:
            way = procedure.changed(threshold=GUIDED_THRESHOLD, guidance=(1.0, GUIDANCE))
            run = way.run(with_caption, targets, **BATCH)
            values = [procedure.nats(result) for result in run.results]
            scores = np.array([-np.inf if value is None else -value for value in values])
            found[f"{procedure.name}, text-guided"] = asdict(_performance(Scored(scores, run.evaluations), labels))
        steps = procedures[0].recipe.sampler_steps
        backbone, counter = counted(with_caption)
        captions = [target.caption or "" for target in targets]
        moved = caption_magnitude(backbone, captions, guidance=GUIDANCE, steps=steps).double().numpy()
        found[CAPTION] = asdict(_performance(Scored(moved, counter.rows_without / len(targets)), labels))
        cosine = PixelCosine(device=torch.device("cpu"))
        repeated = pixels(known.repeated[:count]) / 2 + 0.5
        without = load_backbone(GUIDED, device="cpu", backbone_options={"prompt_mode": "empty"})
        alike = sampled(without, repeated, cosine, samples=UNCAPTIONED, steps=steps).amax(dim=1)
        return {"told": found, "untold": int((alike >= GUIDED_THRESHOLD).sum())}

    request = {"count": count, "recipes": [procedure.recipe.name for procedure in procedures]}
    found = kept(case.root / "detectors" / "text-guided.json", request, find)
    return {name: Performance(**one) for name, one in found["told"].items()}, found["untold"]
