"""What a claim says, what was found, and whether it held: what the page is made of."""

from dataclasses import dataclass


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
    return Finding(what, f"{value:.3f}", f"at least {target:.3g}", bool(value >= target))


def at_most(what: str, value: float, target: float) -> Finding:
    """A figure that should not pass ``target``."""
    return Finding(what, f"{value:.3f}", f"at most {target:.3g}", bool(value <= target))
