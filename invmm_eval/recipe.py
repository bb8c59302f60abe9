"""The settings of a search, as one record; published variants are values of it.

The figures are those of Ma et al., "An Inversion-based Measure of Memorization for Diffusion Models" (ICCV 2025,
arXiv 2405.05846), and of its authors' scripts.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, get_type_hints

from invmm_eval.errors import InvMMError

SAMPLERS = ("ddim", "dpm-solver++")
"""The published deterministic sampler, and one of second order that needs fewer steps for the same samples."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of the search; the letters are the paper's.

    Attributes:
        name: What the values are called; a changed recipe carries its changes in its name.
        max_steps: Adam steps after which an image counts as not replicated; a multiple of ``check_every``.
        learning_rate: Step size of Adam.
        draws: Noises and times drawn a step (S).
        check_every: Steps between two checks (C).
        xi: The weight is halved when the average loss fell by less than this between two checks.
        delta: What the weight grows by in every other step.
        first_weight: The weight (lambda) at the start.
        window: Steps whose loss is averaged at a check.
        check_images: Images drawn at a check and guidance scale (K); all must pass.
        sampler: The deterministic sampler at a check, one of :data:`SAMPLERS`.
        sampler_steps: Its steps.
        guidance: Scales of classifier-free guidance tried at a check; one at which all images pass is enough.
        shared_context: Whether a check draws one context (soft prompt) for all its noises, or one for each.
        threshold: Similarity from which on an image passes (beta); None takes the similarity's own.
        stop: Whether a search ends at the first check it passes. Where not, it takes all steps, and its checks are
            made completely, so that its trace tells the score of each.
        first_dose: Above 0 the search is by dose (``search.dose``): the KL is held at this many nats over all
            dimensions, and doubled after each check that fails; the weight is to be 0. 0 is the paper's search.
        responses: Samples drawn for the dose-response curve after the check that was passed, or, if none was, where
            most samples of a check replicated; 0 draws none, and the value is the dose that passed.
        rate: The share of samples that replicate at the value, where there is a curve.
        confirm: Fresh samples drawn from what was found, for its rate of replication.
        averaging: Decay, in [0, 1), of the average of q's parameters over the steps, which is checked and told in place
            of the latest ones; 0 is the paper's search.
    """

    name: str = "custom"
    max_steps: int = 2000
    learning_rate: float = 0.1
    draws: int = 32
    check_every: int = 50
    xi: float = 1e-3
    delta: float = 1e-4
    first_weight: float = 1.0
    window: int = 100
    check_images: int = 8
    sampler: str = "ddim"
    sampler_steps: int = 200
    guidance: tuple[float, ...] = (1.0,)
    shared_context: bool = True
    threshold: float | None = None
    stop: bool = True
    first_dose: float = 0.0
    responses: int = 0
    rate: float = 0.95
    confirm: int = 0
    averaging: float = 0.0

    def __post_init__(self) -> None:
        counts = ("max_steps", "draws", "check_every", "window", "check_images", "sampler_steps")
        for name in counts:
            if getattr(self, name) < 1:
                raise InvMMError(f"The recipe's {name} is {getattr(self, name)}; it must be at least 1.")
        if self.max_steps % self.check_every:
            raise InvMMError(
                f"The recipe's max_steps ({self.max_steps}) must be a multiple of check_every ({self.check_every}): "
                "a search can only end at a check."
            )
        for name in ("learning_rate", "delta", "first_weight", "guidance", "threshold", "first_dose", "rate"):
            value = getattr(self, name)
            if not all(map(math.isfinite, value if isinstance(value, tuple) else (value or 0,))):
                raise InvMMError(f"The recipe's {name} is {value}; it must be finite.")
        if not self.learning_rate > 0:
            raise InvMMError(f"The recipe's learning_rate is {self.learning_rate}; it must be above 0.")
        if self.sampler not in SAMPLERS:
            raise InvMMError(f"The recipe's sampler is {self.sampler!r}; there are {', '.join(SAMPLERS)}.")
        for name in ("first_dose", "responses", "confirm"):
            if getattr(self, name) < 0:
                raise InvMMError(f"The recipe's {name} is {getattr(self, name)}; it must not be negative.")
        if not 0 <= self.averaging < 1:
            raise InvMMError(f"The recipe's averaging is {self.averaging}; it must be at least 0 and below 1.")
        if self.averaging and self.first_dose:
            raise InvMMError(
                "The recipe averages steps by dose, whose path is an average already; leave averaging at 0."
            )
        if not 0 < self.rate < 1:
            raise InvMMError(f"The recipe's rate is {self.rate}; it must be between 0 and 1.")
        if self.responses and not self.first_dose:
            raise InvMMError("The recipe asks for responses without doses; set first_dose above 0.")
        if self.responses % self.check_images:
            raise InvMMError(
                f"The recipe's responses ({self.responses}) must be a multiple of check_images ({self.check_images}), "
                "the samples drawn at a dose."
            )
        if not self.guidance:
            raise InvMMError("The recipe names no guidance scale; an unconditional model takes the one scale 1.0.")

    def changed(self, **changes: Any) -> "Recipe":
        """This recipe with other values, and a name that tells them.

        Raises:
            InvMMError: A setting that does not exist, or a value out of range.
        """
        known = {field.name for field in fields(self)} - {"name"}
        if unknown := sorted(set(changes) - known):
            raise InvMMError(f"A recipe has no setting {unknown[0]!r}; it has {', '.join(sorted(known))}.")
        differing = {key: value for key, value in changes.items() if value != getattr(self, key)}
        if not differing:
            return self
        told = ", ".join(f"{key}={value}" for key, value in sorted(differing.items()))
        return replace(self, name=f"{self.name} with {told}", **differing)

    @classmethod
    def parse(cls, settings: list[str]) -> dict[str, Any]:
        """Read ``KEY=VALUE`` texts into changes for :meth:`changed`.

        Raises:
            InvMMError: A text without ``=``, an unknown setting, or a value that is not of its type.
        """
        hints = {key: hint for key, hint in get_type_hints(cls).items() if key != "name"}
        readers: dict[Any, Callable[[str], Any]] = {
            int: int,
            float: float,
            bool: _truth,
            str: str,
            tuple[float, ...]: _scales,
            float | None: float,
        }
        changes: dict[str, Any] = {}
        for setting in settings:
            key, equals, text = setting.partition("=")
            if not equals or key not in hints:
                raise InvMMError(f"{setting!r} is not KEY=VALUE with KEY one of {', '.join(sorted(hints))}.")
            try:
                changes[key] = readers[hints[key]](text)
            except (KeyError, ValueError):
                raise InvMMError(f"{text!r} is no value for the recipe's {key}.") from None
        return changes


def _truth(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


def _scales(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


DDPM = Recipe(name="paper-ddpm", draws=32, check_every=50, delta=1e-4, sampler_steps=200)
"""Pixel models at 32x32."""

LDM = Recipe(name="paper-ldm", draws=16, check_every=10, delta=5e-4, sampler_steps=50)
"""Unconditional latent diffusion at 256x256."""

STABLE_DIFFUSION = Recipe(
    name="paper-sd",
    draws=16,
    check_every=50,
    delta=1e-3,
    sampler_steps=50,
    guidance=(1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0),
)
"""Stable Diffusion 1.4 and 2.1."""

STABLE_DIFFUSION_3 = replace(
    STABLE_DIFFUSION, name="paper-sd3", guidance=(1.0, 2.0, 3.0, 4.0, 5.0), shared_context=False
)
"""Stable Diffusion 3.5 medium."""

DEMO = Recipe(name="demo", max_steps=250, draws=8, check_every=25, sampler_steps=25)
"""Not the paper's: short enough for a small pixel model on a CPU, with the same stopping rule."""


def by_dose(published: Recipe) -> Recipe:
    """The search by dose (docs/estimator.md), up to 1,024 nats, with a family's published guidance and contexts."""
    return replace(
        published,
        name=f"dose-{published.name.removeprefix('paper-')}",
        max_steps=160,
        check_every=16,
        first_weight=0.0,
        delta=0.0,
        sampler_steps=min(published.sampler_steps, 50),
        first_dose=2.0,
        responses=64,
    )
