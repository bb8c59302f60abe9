"""The figure of an audit shows every image of which a copy was found."""

import math
import re
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from invmm_eval.reports.figures import COLOURS, distribution
from invmm_eval.reports.findings import find
from invmm_eval.search.result import Status
from invmm_eval.search.status import MEMORIZED, Verdict
from tests.helpers import audits
from tests.helpers.documents import ROOT


def heights(figure: Figure) -> list[float]:
    """Of the bars that are not empty."""
    [axes] = figure.axes
    return [bar.get_height() for bar in axes.patches if isinstance(bar, Rectangle) and bar.get_height()]


@pytest.mark.parametrize(
    ("values", "replicated"),
    [
        ([0.02, 0.4, 0.9, 0.15, math.inf, math.inf, None], 4),
        ([0.1, 0.1, math.inf], 2),
        ([0.0, 1e-9], 2),
        ([3.0], 1),
        ([None], 0),
        ([], 0),
    ],
)
def test_every_image_of_which_copies_were_found_is_shown(
    values: list[float | None], replicated: int, tmp_path: Path
) -> None:
    figure = distribution(audits.of_values(tmp_path, values))
    assert sum(heights(figure)) == replicated
    figure.savefig(BytesIO(), format="svg")


def test_where_shares_are_known_they_are_shown_with_the_limit_of_the_verdict(tmp_path: Path) -> None:
    shares = (1 / 30, 1e-7)
    found = [audits.result(index, Status.REPLICATED, 0.1) for index in range(3)]
    known = [
        (audits.shared(result, share=share, low=share / 2, copies=9), target)
        for share, (result, target) in zip(shares, found, strict=False)
    ]
    figure = distribution(find(audits.write(tmp_path, [*known, found[2]])))
    left = figure.axes[0]
    assert np.asarray(left.lines[0].get_xdata()).tolist() == [1 / MEMORIZED] * 2
    bars = [patch for patch in left.patches if isinstance(patch, Rectangle) and patch.get_height()]
    places = sorted((bar.get_x(), bar.get_x() + bar.get_width()) for bar in bars)
    assert [first <= 1 / share <= last for (first, last), share in zip(places, shares, strict=True)] == [True, True]
    assert len({bar.get_facecolor() for bar in bars}) == 2


def test_the_colours_of_verdicts_are_the_same_on_every_page() -> None:
    pages = (
        Path("invmm_eval/reports/html/page.css"),
        Path("plugins/invmm-ui/src/invmm_ui/page.css"),
    )
    for page in pages:
        light = (ROOT / page).read_text("utf-8").partition("}")[0]
        told = dict(re.findall(r"--(\w+): (#\w{6})", light))
        assert {verdict: told[verdict.name.lower()] for verdict in Verdict} == COLOURS


def test_a_bar_is_at_its_value(tmp_path: Path) -> None:
    left = distribution(audits.of_values(tmp_path, [0.02])).axes[0]
    [bar] = [patch for patch in left.patches if isinstance(patch, Rectangle) and patch.get_height()]
    assert bar.get_x() <= 0.02 <= bar.get_x() + bar.get_width()
