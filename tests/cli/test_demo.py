"""The picture that the demo draws."""

import re

import pytest
import torch

from invmm_eval.cli.demo import compared, draw
from invmm_eval.reference import all_pictures, choose, pictures
from invmm_eval.search.result import Check, Result, Status
from tests.helpers import audits
from tests.helpers.command import printed


def test_the_drawing_has_a_row_for_each_picture() -> None:
    chosen = choose(pictures(), each=1, held_out=1)
    shown = Check(True, {1.0: (0.9, 0.9)}, {1.0: torch.zeros(2, 3, 32, 32, dtype=torch.uint8)})
    results = [Result(index=0, name="", digest="", status=Status.REPLICATED, kl=0.2, check=shown) for _ in chosen]
    results[-1] = Result(index=5, name="", digest="", status=Status.FAILED, error="It broke.")
    figure = draw(chosen, results)
    texts = {text.get_text() for axis in figure.axes for text in axis.texts}
    repeated = {f"{copies} copies\nreplicable" for copies in (256, 64, 16, 4)}
    assert texts == repeated | {"1 copy\nreplicable", "held out\nfailed"}


@pytest.mark.parametrize("width", [60, 80])
def test_each_picture_has_one_line_of_the_table(width: int) -> None:
    found = [
        (picture, audits.shared(audits.result(0, Status.REPLICATED, 0.02)[0], **audits.KNOWN))
        for picture in all_pictures()[:9]
    ]
    lines = printed(compared(found), width).splitlines()
    assert max(map(len, lines)) <= width
    told = [re.split(r"  +", line.strip()) for line in lines[2:11]]
    for (picture, _), (*_, copies, estimated, limits, counted) in zip(found, told, strict=True):
        assert picture.drawn
        assert copies == str(picture.copies)
        assert (estimated, limits) == ("1 in 39", "1 in 27 to 1 in 58")
        assert float(counted.removeprefix("1 in ")) == pytest.approx(4096 / picture.drawn, rel=0.05)
