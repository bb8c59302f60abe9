"""The bar: what it shows on a terminal, and that it is silent elsewhere."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any, cast

import pytest
import torch
from rich.console import Console

from invmm_eval.cli.progress import Bar
from invmm_eval.noise.gaussian import diagonal
from invmm_eval.recipe import Recipe
from invmm_eval.search.engine import invert
from invmm_eval.search.result import Check, Result, Status
from invmm_eval.search.search import Search
from invmm_eval.similarity.pixel_cosine import PixelCosine
from tests.helpers.exact import Mixture, pictures, targets

RESULTS = [Result(index, str(index), "", Status.EXHAUSTED, kl=1.0) for index in range(3)]


@dataclass
class Named:
    name: str


@dataclass
class Standing:
    """What the bar reads of a search."""

    name: str
    step: int
    loss: float
    kl: float
    last_check: Check | None = None
    max_steps: int = 40

    @property
    def target(self) -> Named:
        return Named(self.name)


def checked(**similarities: tuple[float, ...]) -> Check:
    values = {float(scale[1:]): found for scale, found in similarities.items()}
    return Check(passed=False, similarities=values, samples={})


def searches(*standing: Standing) -> Sequence[Search]:
    return cast("Sequence[Search]", standing)


def terminal(width: int = 200) -> tuple[Console, StringIO]:
    file = StringIO()
    return Console(file=file, force_terminal=True, width=width, color_system=None), file


def last_lines(file: StringIO) -> tuple[str, str]:
    """The bar and the line below it, as they were drawn last."""
    drawn = re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "\n", file.getvalue()).replace("\r", "\n")
    lines = [line.rstrip() for line in drawn.split("\n") if line.strip()]
    bar = max(number for number, line in enumerate(lines) if " images " in line)
    return lines[bar], "".join(lines[bar + 1 :])


def shown(images: int, *standing: Standing, width: int = 200) -> tuple[str, str]:
    """The lines of a bar that was told of these searches once."""
    console, file = terminal(width)
    with Bar(images, console) as bar:
        bar.on_step(searches(*standing))
    return last_lines(file)


def test_a_search_is_shown() -> None:
    line = shown(3, Standing("cat.png", 7, 0.12345, 1.23456), Standing("dog.png", 7, 9, 9))[1]
    assert line == "step 7/40  loss 0.123  KL 1.235  cat.png"


def test_the_best_similarity_of_the_last_check_is_shown() -> None:
    line = shown(3, Standing("cat.png", 20, 0.1, 0.2, checked(s1=(0.2, 0.3), s2=(0.777, 0.1), s3=(0.5,))))[1]
    assert line == "step 20/40  loss 0.100  KL 0.200  best similarity 0.78  cat.png"


@pytest.mark.parametrize("name", ["[red]x", "a[/]b", "[/red]", "train[:100]#3", ":smile:.png", "{task}", "x\\"])
def test_a_name_is_shown_as_it_is(name: str) -> None:
    assert shown(1, Standing(name, 1, 0.5, 0.5))[1].endswith(f"  {name}")


def test_images_are_counted() -> None:
    console, file = terminal()
    with Bar(3, console) as bar:
        assert list(bar.over(RESULTS[:2])) == RESULTS[:2]
    assert " 2/3 images " in last_lines(file)[0]


def test_count_and_time_are_readable_at_80_columns() -> None:
    line, below = shown(
        123456, Standing("a/folder/of/pictures/" * 5, 2000, 0.1, 0.2, checked(s1=(0.5,)), 2000), width=80
    )
    assert line.endswith(" 0/123,456 images -:--:-- left")
    assert below.startswith("step 2000/2000  loss 0.100  KL 0.200  best similarity 0.50  a/folder")
    assert max(map(len, (line, below))) <= 80


def test_results_pass_as_they_come() -> None:
    def found() -> Iterator[Result]:
        yield RESULTS[0]
        raise ZeroDivisionError

    with Bar(3, terminal()[0]) as bar:
        results = bar.over(found())
        assert next(results) is RESULTS[0]
        with pytest.raises(ZeroDivisionError):
            next(results)


@pytest.mark.parametrize(("steps", "half_cells"), [((), 0), ((0, 0), 0), ((20,), 20), ((20, 20), 40), ((40, 10), 50)])
def test_a_search_under_way_moves_the_bar_but_is_not_counted(steps: Sequence[int], half_cells: int) -> None:
    line = shown(2, *(Standing("a", step, 0.5, 0.5) for step in steps))[0]
    assert " 0/2 images " in line
    assert 2 * line.count("━") + line.count("╸") == half_cells, "40 cells for 2 images"


def test_it_ends_where_something_goes_wrong() -> None:
    console, file = terminal()
    with pytest.raises(ZeroDivisionError), Bar(3, console):
        raise ZeroDivisionError
    assert file.getvalue().rindex("\x1b[?25h") > file.getvalue().rindex("\x1b[?25l"), "the cursor is back"


class Unreadable:
    """Nothing may be read of it: that would make the model wait."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was read")


def test_it_is_silent_where_there_is_no_terminal() -> None:
    file = StringIO()
    with Bar(3, Console(file=file, force_terminal=False)) as bar:
        bar.on_step(cast("Sequence[Search]", [Unreadable()]))
        assert list(bar.over(RESULTS)) == RESULTS
    assert file.getvalue() == ""


def test_it_follows_a_run(cosine: PixelCosine) -> None:
    console, file = terminal()
    images = pictures(3)
    recipe = Recipe(max_steps=6, check_every=3, draws=2, sampler_steps=2, check_images=2, threshold=2.0)
    with Bar(3, console) as bar:
        measured = invert(
            Mixture(images), targets(images), cosine, diagonal(), recipe=recipe, batch_size=2, on_step=bar.on_step
        )
        found = list(bar.over(measured))
    assert " 3/3 images " in last_lines(file)[0]
    [shown] = re.findall(r"step 6/6  loss (\S+)  KL (\S+)  best similarity (\S+)  2", last_lines(file)[1])
    assert found[2].check is not None
    assert torch.tensor([float(value) for value in shown[1:]]) == pytest.approx(
        [found[2].kl, max(found[2].check.similarities[1.0])], abs=0.01
    )
