"""Other detectors of memorization on the same images: how well they tell, and what they spend."""

from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.baselines import nearest, text
from benchmarks.baselines.counting import counted
from benchmarks.evidence.audits import BATCH, ROWS, Procedure
from benchmarks.evidence.case import Case
from benchmarks.evidence.claim import Claim, Finding, Table
from benchmarks.evidence.detectors import MEMBERSHIP, NEAREST, Scored, ours, scored
from benchmarks.evidence.keep import kept
from benchmarks.evidence.measures import auc, tpr
from invmm_eval.audits.auditing import load_backbone, make_plan
from invmm_eval.similarity.pixel_cosine import PixelCosine

GUIDED = Path(__file__).parents[3] / "tests" / "data" / "stable-diffusion"
"""A text-guided model of benchmarks/families.py, six of whose pictures were repeated 64 times."""
GUIDANCE = 3.0
GUIDED_THRESHOLD = 0.8
CAPTION = "caption's magnitude (Wen)"
UNTOLD = 64
"""Samples that the text-guided model draws without a caption."""


@dataclass(frozen=True)
class Told:
    """How well a detector tells, and what it spends an image."""

    auc: float
    tpr: float
    evaluations: float

    @property
    def cells(self) -> tuple[str, str, str]:
        """For a table."""
        return f"{self.auc:.3f}", f"{self.tpr:.2f}", f"{self.evaluations:,.0f}"


def claim(cases: Sequence[Case], procedures: Sequence[Procedure], pictures: Path) -> Claim:  # noqa: ARG001
    """AUC, TPR at 1 % FPR and network evaluations, averaged over the sets; and on a text-guided model."""
    told: dict[str, list[Told]] = {}
    for case in cases:
        images: list[int] = []
        found = {}
        for procedure in procedures:
            images, found[procedure.name] = ours(case, procedure)
        for name, one in {**found, **scored(case, images)}.items():
            told.setdefault(name, []).append(_told(one, case.memorized(images).tolist()))
    means = {name: Told(*np.mean([astuple(one) for one in ones], axis=0).tolist()) for name, ones in told.items()}
    guided, untold = _guided(cases[0], procedures) if cases[0].budget.guided else ({}, 0)
    findings = [
        finding
        for procedure in procedures
        for finding in (
            *_against(procedure.name, means, max(MEMBERSHIP, key=lambda name: means[name].auc)),
            *_against(procedure.name, means, NEAREST),
            *(_against(f"{procedure.name}, text-guided", guided, CAPTION) if guided else ()),
        )
    ]
    tables = [
        Table(
            ("detector", "AUC", "TPR at 1 % FPR", "network evaluations an image"),
            tuple((name, *one.cells) for name, one in means.items()),
            "Averaged over the sets",
        )
    ]
    if guided:
        tables.append(
            Table(
                ("detector", "AUC", "TPR at 1 % FPR", "network evaluations an image"),
                tuple((name, *one.cells) for name, one in guided.items()),
                "On the text-guided model, given the captions. Its repeated pictures are most of its training rows: "
                f"without a caption {untold} of {UNTOLD} samples are copies of them, so that a caption of theirs moves "
                "the estimate least, against what the magnitude supposes",
            )
        )
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


def _told(found: Scored, labels: Sequence[bool]) -> Told:
    return Told(auc(found.scores, labels), tpr(found.scores, labels), found.evaluations)


def _against(name: str, told: dict[str, Told], rival: str) -> list[Finding]:
    ours, theirs = told[name], told[rival]
    return [
        Finding(
            f"{name} against {rival}: AUC",
            f"{ours.auc:.3f} against {theirs.auc:.3f}",
            "no worse",
            ours.auc >= theirs.auc,
        ),
        Finding(
            f"{name} against {rival}: TPR at 1 % FPR",
            f"{ours.tpr:.2f} against {theirs.tpr:.2f}",
            "no worse",
            ours.tpr >= theirs.tpr,
        ),
    ]


def _guided(case: Case, procedures: Sequence[Procedure]) -> tuple[dict[str, Told], int]:
    """The same on the text-guided model: six repeated pictures against single-copy and held-out ones.

    And how many of its samples without a caption are copies of the repeated ones.
    """
    count = case.budget.guided

    def find() -> Any:
        from benchmarks.families import captioned, data, pixels

        known = data()
        sources = captioned([*known.repeated[:count], *known.single[:count], *known.held_out[:count]])
        labels = [place < count for place in range(len(sources))]
        found = {}
        for procedure in procedures:
            backbone, counter = counted(load_backbone(GUIDED, device="cpu", options={"prompt_mode": "caption"}))
            settings = {"threshold": GUIDED_THRESHOLD, "guidance": (1.0, GUIDANCE)}
            plan = make_plan(backbone, GUIDED, similarity="pixel-cosine", recipe=procedure.recipe, settings=settings)
            results = sorted(plan.run(sources, batch_size=BATCH, micro_batch=ROWS), key=lambda result: result.index)
            values = [procedure.nats(result) for result in results]
            scores = [-np.inf if value is None else -value for value in values]
            spent = (counter.plain + 3 * counter.differentiated) / len(sources)
            found[f"{procedure.name}, text-guided"] = asdict(_told(Scored(np.array(scores), spent), labels))
        backbone, counter = counted(load_backbone(GUIDED, device="cpu", options={"prompt_mode": "caption"}))
        captions = [source.caption or "" for source in sources]
        moved = text.score(backbone, captions, guidance=GUIDANCE, steps=procedures[0].recipe.sampler_steps)
        spent = counter.plain / len(sources)
        found[CAPTION] = asdict(_told(Scored(moved.double().numpy(), spent), labels))
        cosine = PixelCosine(device=torch.device("cpu"))
        repeated = pixels(known.repeated[:count]) / 2 + 0.5
        steps = procedures[0].recipe.sampler_steps
        untold = load_backbone(GUIDED, device="cpu", options={"prompt_mode": "empty"})
        alike = nearest.similarities(untold, repeated, cosine, samples=UNTOLD, steps=steps).amax(dim=1)
        return {"told": found, "untold": int((alike >= GUIDED_THRESHOLD).sum())}

    asked = {"count": count, "recipes": [procedure.recipe.name for procedure in procedures]}
    found = kept(case.root / "detectors" / "text-guided.json", asked, find)
    return {name: Told(**one) for name, one in found["told"].items()}, found["untold"]
