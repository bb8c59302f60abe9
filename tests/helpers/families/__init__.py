"""Small pipelines of diffusers' text-to-image families and of others: real classes, random weights, built offline."""

from typing import Any

import torch

from tests.helpers.families.classic import CLASSIC
from tests.helpers.families.flows import FLOWS
from tests.helpers.families.multimodal import MULTIMODAL
from tests.helpers.families.staged import STAGED

FAMILIES = {**CLASSIC, **FLOWS, **MULTIMODAL, **STAGED}
"""Makers of pipelines by the names of AUTO_TEXT2IMAGE_PIPELINES_MAPPING, and names of our own for other kinds."""


def build(name: str) -> Any:
    """The pipeline of a family, as ``from_pretrained`` returns it, with the same weights each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipeline = FAMILIES[name]()
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
