"""The picture that the demo draws."""

import torch

from invmm_eval.cli.demo import draw
from invmm_eval.reference import choose, pictures
from invmm_eval.search.result import Check, Result, Status


def test_the_drawing_has_a_row_for_each_picture() -> None:
    chosen = choose(pictures(), each=1, held_out=1)
    shown = Check(True, {1.0: (0.9, 0.9)}, {1.0: torch.zeros(2, 3, 32, 32, dtype=torch.uint8)})
    results = [Result(index=0, name="", digest="", status=Status.REPLICATED, kl=0.2, check=shown) for _ in chosen]
    results[-1] = Result(index=5, name="", digest="", status=Status.FAILED, error="It broke.")
    figure = draw(chosen, results)
    texts = {text.get_text() for axis in figure.axes for text in axis.texts}
    repeated = {f"{copies} copies\nreplicable" for copies in (256, 64, 16, 4)}
    assert texts == repeated | {"1 copy\nreplicable", "held out\nfailed"}
