"""The figure of a comparison shows every picture that has a value in both audits."""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import PathCollection

from invmm_eval.reports.comparison import Comparison, compare
from invmm_eval.reports.comparison.figure import changes
from invmm_eval.search.result import Status
from tests.helpers import audits


def places(compared: Comparison) -> list[tuple[float, float]]:
    axes = changes(compared).axes[0]
    marks = [part for part in axes.collections if isinstance(part, PathCollection)]
    offsets = [np.asarray(part.get_offsets()) for part in marks]
    return sorted(map(tuple, np.concatenate(offsets).tolist()))


def test_each_picture_is_at_its_distances_and_without_a_copy_at_the_end(compared: Comparison) -> None:
    found = places(compared)
    assert len(found) == len(compared.valued) == 5
    end = found[-1][0]
    assert end == pytest.approx(math.log(100_000))
    often = -math.log(1 / 20)
    known = sorted([(end, often), (often, end), (often, -math.log(1 / 17)), (end, end), (end, end)])
    assert np.allclose(found, known)
    axes = changes(compared).axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()][-1] == "rarer"


@pytest.mark.parametrize("width", [4.4, 6.4])
def test_all_is_inside_the_figure_on_a_phone_too(compared: Comparison, width: float) -> None:
    figure = changes(compared, width=width)
    figure.draw_without_rendering()
    drawn = figure.get_tightbbox()
    assert (drawn.x0, drawn.y0) >= (0, 0)
    assert drawn.x1 <= width
    labels = figure.axes[0].get_xticklabels()
    boxes = [label.get_window_extent() for label in labels]
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


def test_without_shares_the_axes_are_nats(tmp_path: Path) -> None:
    a = audits.write(tmp_path / "a", [audits.result(0, Status.REPLICATED, 0.02)])
    b = audits.write(tmp_path / "b", [audits.result(0, Status.REPLICATED, 0.03)])
    compared = compare(a, b)
    assert np.allclose(places(compared), [(0.02 * audits.DIMENSIONS, 0.03 * audits.DIMENSIONS)])
    assert changes(compared).axes[0].get_xlabel() == "A: nats in total"
