"""How often plain samples of a pipeline, by its own call, are copies of pictures."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.families.data import Picture, stacked
from benchmarks.families.training import FAMILIES, LATENT, load
from invmm_eval.similarity.pixel_cosine import PixelCosine

BATCH, STEPS = 256, 25


def copies(name: str, folder: Path, chosen: Sequence[Picture], samples: int, device: torch.device) -> dict[str, Any]:
    """For each picture the shares of copies among samples with its caption and, of all together, without any."""
    family, pipeline, similarity = FAMILIES[name], load(folder, device), PixelCosine(device=device)
    features = similarity.embed(stacked(chosen).to(device) / 2 + 0.5)

    def share(text: str, wanted: Tensor) -> list[float]:
        drawn = similarity.embed(drawn_from(pipeline, text, samples, family.side, family.options))
        found: list[float] = (similarity.compare(drawn, wanted) >= LATENT["threshold"]).float().mean(dim=0).tolist()
        return found

    own = [share(family.caption(picture), features[[row]])[0] for row, picture in enumerate(chosen)]
    none = share("", features)
    return {p.name: {"caption": a, "empty": b} for p, a, b in zip(chosen, own, none, strict=True)}


@torch.no_grad()
def drawn_from(pipeline: Any, text: str, samples: int, side: int, options: Any) -> Tensor:
    """Images ``(samples, 3, side, side)`` of the pipeline's own call, not guided."""
    takes = inspect.signature(type(pipeline).__call__).parameters
    generator = torch.Generator().manual_seed(0)
    batches = []
    for start in range(0, samples, BATCH):
        n = min(BATCH, samples - start)
        given = {
            "prompt": [text] * n,
            "batch_size": n,
            "height": side,
            "width": side,
            "guidance_scale": 1.0,
            "use_resolution_binning": False,
            "num_inference_steps": STEPS,
            "output_type": "np",
            "generator": generator,
            **options,
        }
        if "class_labels" in takes:
            given["class_labels"] = [pipeline.labels.get(text, len(pipeline.labels))] * n
        made = pipeline(**{key: value for key, value in given.items() if key in takes}).images
        batches.append(torch.from_numpy(made).movedim(-1, 1).to(pipeline.device))
    return torch.cat(batches)
