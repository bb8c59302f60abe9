"""What a claim says, what was found, and whether it held: what the page is made of."""

import math
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = ("#b3261e", "#386a20", "#0b57d0", "#7d5260", "#00696d")


@dataclass(frozen=True)
class Finding:
    """One figure, with its target if it has one."""

    what: str
    figure: str
    target: str = ""
    held: bool | None = None  # whether the target was reached


@dataclass(frozen=True)
class Table:
    """Columns, and rows of what stands in them."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""


@dataclass(frozen=True)
class Claim:
    """A claim with its findings."""

    name: str  # a word for file names
    title: str  # the claim itself
    method: str  # how it was tested
    findings: tuple[Finding, ...]
    tables: tuple[Table, ...] = ()
    picture: str = ""  # file name of a figure
    words: str = ""  # what the figure shows

    @property
    def held(self) -> bool | None:
        """Whether all that was aimed at was reached; None where nothing was aimed at."""
        aims = [finding.held for finding in self.findings if finding.held is not None]
        return all(aims) if aims else None


def at_least(what: str, value: float, target: float) -> Finding:
    """A figure that should reach ``target``."""
    return Finding(what, f"{value:.3f}", f"at least {target:.3g}", value >= target)


def at_most(what: str, value: float, target: float) -> Finding:
    """A figure that should not pass ``target``."""
    return Finding(what, f"{value:.3f}", f"at most {target:.3g}", value <= target)


def as_nats(value: float) -> str:
    """Nats for a table; infinite where there is none."""
    return "∞" if value == math.inf else f"{value:.1f}" if value < 10 else f"{value:.0f}"


def plot(width: float = 5, height: float = 3.4) -> tuple[Figure, Axes]:
    """A figure with one pair of axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def save(figure: Figure, pictures: Path, name: str) -> str:
    """Write a figure; returns its file name."""
    pictures.mkdir(parents=True, exist_ok=True)
    figure.savefig(pictures / f"{name}.png", dpi=90)
    return f"{name}.png"
