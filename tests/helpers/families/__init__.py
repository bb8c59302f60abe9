"""Small pipelines of diffusers' text-to-image families and of others: real classes, random weights, built offline."""

from typing import Any

from invmm_eval.testing import tiny
from tests.helpers.families.classic import CLASSIC
from tests.helpers.families.flows import FLOWS
from tests.helpers.families.multimodal import MULTIMODAL
from tests.helpers.families.staged import STAGED
from tests.helpers.families.video import VIDEO

FAMILIES = {**CLASSIC, **FLOWS, **MULTIMODAL, **STAGED, **VIDEO}
"""Makers of pipelines by the names of AUTO_TEXT2IMAGE_PIPELINES_MAPPING, and names of our own for other kinds."""


def build(name: str) -> Any:
    """The pipeline of a family, as ``from_pretrained`` returns it, with the same weights each time."""
    with tiny.seeded():
        return tiny.ready(FAMILIES[name]())
