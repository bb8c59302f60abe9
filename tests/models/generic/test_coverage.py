"""The families that the page lists are those that are served: some of them here, all in tests/benchmarks."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from tests.helpers.coverage import PAGE, base_families, row
from tests.helpers.families import FAMILIES, build


@pytest.mark.parametrize("name", ["lumina2", "chroma", "cogview4", "krea2", "if", "EDM", "wan", "ltx"])
def test_a_family_is_served_as_the_page_says(name: str) -> None:
    assert row(name) in PAGE.read_text("utf-8").splitlines()


def test_the_page_has_a_row_for_each_family_and_tells_how_many_are_not_served() -> None:
    rows = re.findall(r"^\| ([\w -]+) \| `\w+Pipeline` \|", PAGE.read_text("utf-8"), re.M)
    assert rows == list(FAMILIES)
    assert len(base_families()) == 36
    assert len(set(base_families()) - set(FAMILIES)) == 6


@pytest.fixture
def memory_of_nan() -> Iterator[None]:
    """PyTorch fills memory that nobody has written with NaN."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("memory_of_nan")
def test_no_weight_of_a_family_is_what_memory_held() -> None:
    assert torch.empty(1).isnan()
    assert {name: unset for name in FAMILIES if (unset := list(_not_finite(build(name))))} == {}


def _not_finite(pipeline: Any) -> Iterator[str]:
    for part, module in pipeline.components.items():
        weights = module.state_dict() if isinstance(module, nn.Module) else {}
        yield from (f"{part}.{name}" for name, weight in weights.items() if not weight.isfinite().all())
