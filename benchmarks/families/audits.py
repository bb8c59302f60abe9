"""Audits of small models, and what is told about them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.common.measures import auc
from benchmarks.common.procedure import Setup
from invmm_eval.audits.plan import load_backbone
from invmm_eval.recipe import RECIPES
from invmm_eval.reference import MICRO_BATCH
from invmm_eval.search.result import Result, Status
from invmm_eval.search.target import Target


def audit(
    model: Path,
    targets: Sequence[Target],
    options: Mapping[str, Any],
    settings: Mapping[str, Any],
    *,
    recipe: str = "demo",
    device: str = "cpu",
) -> list[Result]:
    """An audit of one model by a recipe and changes to it; ``fast`` keeps its own guidance scales."""
    if recipe == "fast":
        settings = {key: value for key, value in settings.items() if key != "guidance"}
    backbone = load_backbone(model, backbone_options=options, device=device)
    setup = Setup(backbone, RECIPES[recipe](backbone.recipe).changed(**settings))
    return setup.measure(targets, title=model.name, batch_size=8, micro_batch=MICRO_BATCH)


def row(
    name: str, mode: str, recipe: str, repeated: Sequence[Result], held_out: Sequence[Result], seconds: float
) -> dict[str, Any]:
    """The results of one audit on both kinds of pictures."""
    return {
        "family": name,
        "prompt": mode,
        "recipe": recipe,
        "auc": auc([-r.invmm for r in (*repeated, *held_out)], [True] * len(repeated) + [False] * len(held_out)),
        "seconds": round(seconds, 1),
        "repeated": [result.record() for result in repeated],
        "held_out": [result.record() for result in held_out],
    }


def strip(target: Tensor, result: Result) -> NDArray[np.uint8]:
    """A picture, a gap, and four samples made from the noise found for it, side by side."""
    assert result.check is not None
    samples = list(result.check.samples[result.check.best_scale][:4])
    gap = torch.full((3, target.shape[1], target.shape[2] // 4), 255, dtype=torch.uint8)
    blank = [torch.full_like(target, 255)] * (4 - len(samples))
    return torch.cat([target, gap, *samples, *blank], 2).permute(1, 2, 0).numpy()


def figure(shown: Mapping[str, Sequence[tuple[str, NDArray[np.uint8]]]]) -> Figure:
    """The strips of each family, with titles."""
    columns = max(map(len, shown.values()))
    drawn = Figure(figsize=(3.1 * columns, 0.85 * len(shown)), layout="constrained")
    for axes, (name, strips) in zip(drawn.subplots(len(shown), columns, squeeze=False), shown.items(), strict=True):
        for axis, (title, pixels) in zip(axes, strips, strict=True):
            axis.imshow(pixels)
            axis.set_title(title, fontsize=8)
            axis.axis("off")
        axes[0].text(-0.03, 0.5, name, transform=axes[0].transAxes, ha="right", va="center", fontsize=9)
    return drawn


def summary(group: Sequence[Mapping[str, Any]]) -> str:
    """The number of a group that was replicated, and the range of values."""
    values = sorted(one["invmm"] for one in group if one["status"] == Status.REPLICATED)
    spread = f", InvMM {values[0]:.3f} to {values[-1]:.3f}" if values else ""
    return f"{len(values)} of {len(group)}{spread}"


def verdict(result: Result) -> str:
    return f"InvMM {result.invmm:.3f}" if result.status is Status.REPLICATED else "not replicated"


COLUMNS = ("family", "prompt", "recipe", "repeated", "held out", "AUC", "seconds")


def cells(one: Mapping[str, Any]) -> tuple[str, ...]:
    """The table's row of one audit."""
    groups = summary(one["repeated"]), summary(one["held_out"])
    return (one["family"], one["prompt"] or "-", one["recipe"], *groups, f"{one['auc']:.2f}", f"{one['seconds']:.0f}")
