"""The bar: what it shows on a terminal, and that it is silent elsewhere."""

import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from invmm_eval.audits.folder.manifest import verify
from invmm_eval.audits.progress import Bar
from invmm_eval.noise.gaussian import diagonal
from invmm_eval.recipe import Recipe
from invmm_eval.reports import report
from invmm_eval.reports.comparison import compare
from invmm_eval.search.engine import invert
from invmm_eval.search.plain_share import PlainShare
from invmm_eval.search.result import Check, Result, Status
from invmm_eval.search.search import Search
from invmm_eval.similarity.pixel_cosine import PixelCosine
from tests.helpers.audits import guided
from tests.helpers.exact import Mixture, pictures, targets

RESULTS = [Result(index, str(index), "", Status.EXHAUSTED, kl=1.0) for index in range(3)]


@dataclass
class Standing:
    """What the bar reads of a search."""

    name: str
    step: int = 7
    loss: float = 0.12345
    kl: float = 1.23456
    last_check: Check | None = None
    max_steps: int = 40
    status: Status | None = None
    sampled: int = 0

    @property
    def target(self) -> Any:
        return SimpleNamespace(name=self.name)


class Terminal(StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return 2

    @property
    def lines(self) -> list[str]:
        """What was drawn, one line after the other."""
        return [line.rstrip() for line in self.getvalue().split("\r") if line.strip()]


def checked(**similarities: tuple[float, ...]) -> Check:
    values = {float(scale[1:]): found for scale, found in similarities.items()}
    return Check(passed=False, similarities=values, samples={})


def searches(*standing: Standing) -> Sequence[Search]:
    return cast("Sequence[Search]", standing)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal of 200 columns in place of the error stream."""
    file = Terminal()
    monkeypatch.setattr("invmm_eval.audits.progress.sys", SimpleNamespace(stderr=file))
    monkeypatch.setattr("invmm_eval.audits.progress._EVERY", 0)
    monkeypatch.setattr("os.get_terminal_size", lambda *_: os.terminal_size((201, 25)))
    return file


def shown(terminal: Terminal, images: int, *standing: Standing) -> str:
    """The line of a bar that was told of these searches once."""
    with Bar(images) as bar:
        bar.on_step(searches(*standing))
        return terminal.lines[-1]


def test_loading_is_shown_before_the_first_step(terminal: Terminal) -> None:
    with Bar(3):
        assert re.fullmatch(r"0/3 images \| +\| \? left, loading", terminal.lines[-1])


CHECK = checked(s1=(0.2, 0.3), s2=(0.777, 0.1), s3=(0.5,))


@pytest.mark.parametrize(
    ("standing", "line"),
    [
        ([Standing("cat.png"), Standing("dog.png", 8)], "step 7/40 loss 0.123 KL 1.235 cat.png"),
        ([Standing("cat.png", loss=math.nan)], "left, step 7/40 KL 1.235 cat.png"),
        ([Standing("cat.png", last_check=CHECK)], "KL 1.235 best 0.78 cat.png"),
        *(
            ([Standing(name)], f"KL 1.235 {name}")
            for name in ("[red]x", "a[/]b", "train[:100]#3", ":smile:.png", "{task}", "x\\", "%s")
        ),
    ],
)
def test_a_search_is_shown(standing: list[Standing], line: str, terminal: Terminal) -> None:
    assert shown(terminal, 3, *standing).endswith(line)


def test_samples_after_a_search_are_shown_and_do_not_move_the_bar_back(terminal: Terminal) -> None:
    with Bar(2) as bar:
        bar.on_step(searches(Standing("a", 20), Standing("b", 20)))
        before = terminal.lines[-1].count("█")
        bar.on_step(searches(Standing("a", 20, status=Status.REPLICATED, sampled=36)))
        line = terminal.lines[-1]
    assert line.endswith("36 samples drawn a")
    assert line.count("█") == before == 8


def test_what_reads_a_folder_shows_how_far_it_is(terminal: Terminal, tmp_path: Path) -> None:
    folder = guided(tmp_path)
    for read, *seen in (
        (lambda: verify(folder), "reading"),
        (lambda: compare(folder, folder), "reading"),
        (lambda: report(folder), "reading", "writing"),
        (lambda: report(folder, format="csv"), "reading", "writing"),
    ):
        terminal.truncate(0)
        read()
        told = [re.match(r"(\d+/\d+) images \|.*left, (\w+)$", line) for line in terminal.lines]
        assert {match[2]: match[1] for match in told if match} == dict.fromkeys(seen, "7/7")


def test_count_and_time_are_readable_at_80_columns(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.get_terminal_size", lambda *_: os.terminal_size((81, 25)))
    name = "a/folder/of/pictures/" * 5
    line = shown(terminal, 123456, Standing(name, 1000, 0.1, 0.2, checked(s1=(0.5,)), 2000))
    assert re.match(r"0/123,456 images \|.{16}\| \S+ left, step 1000/2000 loss 0.100", line)
    assert len(line) <= 80


def test_neither_loading_nor_known_images_count_for_the_time_left(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """10 known images, then a quarter of the 10 others in 10 seconds: 30 seconds are left."""
    now = 0.0
    monkeypatch.setattr("tqdm.std.time", lambda: now)
    with Bar(20) as bar:
        now = 1000.0
        list(bar.over(10 * RESULTS[:1]))
        bar.on_step(searches(Standing("a", 0)))
        now += 10
        bar.on_step(searches(*(Standing("a", 20) for _ in range(5))))
        assert " 00:30 left" in terminal.lines[-1]


def test_results_are_counted_as_they_come(terminal: Terminal) -> None:
    def found() -> Iterator[Result]:
        yield RESULTS[0]
        raise ZeroDivisionError

    with Bar(3) as bar:
        results = bar.over(found())
        assert next(results) is RESULTS[0]
        assert terminal.lines[-1].startswith("1/3 images |")
        with pytest.raises(ZeroDivisionError):
            next(results)


class Unreadable:
    """Nothing may be read of it: that would make the model wait."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was read")


@pytest.mark.parametrize("is_terminal", [True, False])
def test_it_is_silent_where_it_is_not_wanted(
    is_terminal: bool, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "isatty", lambda: is_terminal)
    with Bar(3, shown=not is_terminal) as bar:
        bar.on_step(cast("Sequence[Search]", [Unreadable()]))
        assert list(bar.over(RESULTS)) == RESULTS
    assert terminal.getvalue() == ""


def test_it_follows_a_run(cosine: PixelCosine, terminal: Terminal) -> None:
    images = pictures(3)
    recipe = Recipe(max_steps=6, check_every=3, draws=2, sampler_steps=2, check_images=2, threshold=2.0)
    told: list[int] = []
    with Bar(3, also=lambda searches: told.append(len(searches))) as bar:
        measured = invert(
            Mixture(images), targets(images), cosine, diagonal(), recipe=recipe, batch_size=2, on_step=bar.on_step
        )
        found = list(bar.over(measured))
        assert terminal.lines[-1].startswith("3/3 images ")
    assert told == [2] * 6 + [1] * 6
    [kl] = re.findall(r"step 6/6 loss \S+ KL (\S+) best \S+ 2$", terminal.lines[-2])
    assert float(kl) == pytest.approx(found[2].kl, abs=0.001)


@pytest.mark.parametrize(
    ("settings", "drawn"),
    [
        ({"estimators": ("plain-share",), "plain": 6, "max_steps": 6}, [2, 4, 6]),
        ({"optimizer": "dose", "first_dose": 2.0, "responses": 6, "confirm": 4}, [2, 4, 6, 10]),
    ],
)
def test_it_moves_while_samples_are_drawn_after_a_search(
    settings: dict[str, Any], drawn: list[int], cosine: PixelCosine, terminal: Terminal
) -> None:
    recipe = Recipe(**{"max_steps": 2, "check_every": 2, "draws": 2, "sampler_steps": 2, "check_images": 2, **settings})
    with Bar(1) as bar:
        [_] = invert(
            *(Mixture(pictures(1)), targets(pictures(1)), cosine, diagonal()),
            recipe=recipe,
            estimators=[PlainShare()],
            on_step=bar.on_step,
        )
    seen = [int(count) for line in terminal.lines for count in re.findall(r"(\d+) samples drawn 0$", line)]
    assert list(dict.fromkeys(seen))[: len(drawn)] == drawn
