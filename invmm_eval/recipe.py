"""The settings of a search, and the published ones.

The figures are those of Ma et al., "An Inversion-based Measure of Memorization for Diffusion Models" (ICCV 2025,
arXiv 2405.05846), and of its authors' scripts.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_type_hints

from invmm_eval.errors import InvMMError
from invmm_eval.hints import check_types

MOST_GUIDANCE = 100
"""The largest guidance scale."""

_RANGES: tuple[tuple[tuple[str, ...], Callable[[Any], bool], str], ...] = (
    (
        ("max_steps", "draws", "check_every", "window", "check_images", "sampler_steps"),
        lambda value: value >= 1,
        "be at least 1",
    ),
    (
        ("delta", "first_weight", "plain", "first_dose", "responses", "confirm"),
        lambda value: value >= 0,
        "not be negative",
    ),
    (("learning_rate", "max_nats"), lambda value: value is None or value > 0, "be above 0"),
    (("growth",), lambda value: value > 1, "be above 1"),
    (("reject",), lambda value: -1 <= value <= 1, "be a cosine, between -1 and 1"),
    (("rate",), lambda value: 0 < value < 1, "be between 0 and 1"),
)
"""Settings, what their values must fulfil, and how an error says so."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of the search; the letters are the paper's.

    Attributes:
        name: Name of the settings; a changed recipe has its changes in its name.
        optimizer: How q is moved: ``adam`` (the paper's), ``dose`` or ``one-shot``, one of
            :data:`invmm_eval.search.optimizers.OPTIMIZERS`.
        criterion: The stopping rule: ``all-samples`` (the paper's) or ``any-sample``, one of
            :data:`invmm_eval.search.criteria.CRITERIA`.
        estimators: Registered names of further estimators that run after each search.
        max_steps: Maximum number of optimizer steps, a multiple of ``check_every``.
        max_nats: A search also ends at the first check at which the KL over all dimensions is at least this number of
            nats, above 0: an image that needs more is not called memorized. None has no such limit.
        learning_rate: Step size of Adam.
        draws: Number of noises and times drawn per step (S).
        times: The times of a step: ``uniform`` (the paper's), or ``informative``, those at which a noised image can be
            distinguished from others (:func:`invmm_eval.search.times.informative`).
        check_every: Number of steps between two checks (C).
        xi: The weight is halved if the average loss fell by less than this between two checks.
        delta: Growth of the weight per step otherwise.
        first_weight: The weight (lambda) at the start.
        window: Number of steps whose loss is averaged at a check.
        check_images: Number of samples at a check (K): at each guidance scale, or, with ``any-sample``, of all scales
            together.
        sampler: The sampler of checks: ``ddim`` (the paper's), ``dpm-solver++``, of second order, which needs fewer
            steps for the same samples, or ``own``, that of the model's scheduler, for models that are made for few
            steps (docs/models.md).
        sampler_steps: Number of its steps.
        clip: Whether it clips its estimates of x_0: ``model`` does so if the model's own scheduler does, ``none`` (the
            paper's) never does; the sample itself is clipped either way.
        reject: A sample is given up on the way if the estimate of x_0 there has a smaller cosine with the image, in
            [-1, 1], or a part of it while the image hardly stands out of the noise; -1 gives none up.
        plain: Number of plain samples of the model, drawn once and compared with every image that takes no text of its
            own, for the share of copies among them.
        guidance: Scales of classifier-free guidance tried at a check. Scale 0 is the model without a prompt, which is
            tried where the prompt is searched.
        shared_context: Whether a check draws one context (soft prompt) for all its noises, or one for each.
        threshold: Similarity from which on a sample counts as a replica (beta); None takes the similarity's own.
        stop: Whether a search ends at the first passed check. If not, it takes all steps, and its checks draw all
            samples, so that its trace has the score of each.
        first_dose: First KL of the optimizers ``dose`` and ``one-shot``, in nats over all dimensions, above 0. The
            weight should then be 0.
        growth: By which factor the dose grows after each failed check, above 1.
        responses: Number of samples for the dose-response curve, drawn after the passed check, or, if none was passed,
            where most samples of a check were replicas. With 0 the value is the dose that passed.
        rate: The share of samples that replicate at the value, where there is a curve.
        confirm: Number of new samples drawn from the found q, for its rate of replication.
    """

    name: str = "custom"
    optimizer: str = "adam"
    criterion: str = "all-samples"
    estimators: tuple[str, ...] = ()
    max_steps: int = 2000
    max_nats: float | None = None
    learning_rate: float = 0.1
    draws: int = 32
    times: Literal["uniform", "informative"] = "uniform"
    check_every: int = 50
    xi: float = 1e-3
    delta: float = 1e-4
    first_weight: float = 1.0
    window: int = 100
    check_images: int = 8
    sampler: Literal["ddim", "dpm-solver++", "own"] = "ddim"
    sampler_steps: int = 200
    clip: Literal["model", "none"] = "model"
    reject: float = -1.0
    plain: int = 0
    guidance: tuple[float, ...] = (1.0,)
    shared_context: bool = True
    threshold: float | None = None
    stop: bool = True
    first_dose: float = 0.0
    growth: float = 2.0
    responses: int = 0
    rate: float = 0.95
    confirm: int = 0

    def __post_init__(self) -> None:
        check_types(self, "The recipe's ")
        for names, fits, words in _RANGES:
            for name in names:
                if not fits(getattr(self, name)):
                    raise InvMMError(f"The recipe's {name} is {getattr(self, name)}; it must {words}.")
        if self.max_steps % self.check_every:
            raise InvMMError(
                f"The recipe's max_steps ({self.max_steps}) must be a multiple of check_every ({self.check_every}): "
                "a search can only end at a check."
            )
        if self.optimizer in ("dose", "one-shot") and not self.first_dose:
            raise InvMMError(f"The recipe's optimizer {self.optimizer} needs a first_dose above 0, in nats.")
        for name in ("first_dose", "responses"):
            if self.optimizer == "adam" and getattr(self, name):
                raise InvMMError(f"The recipe's {name} has no effect on optimizer adam; set optimizer=dose.")
        if self.responses % self.check_images:
            raise InvMMError(
                f"The recipe's responses ({self.responses}) must be a multiple of check_images ({self.check_images}), "
                "the samples drawn at a dose."
            )
        if not self.guidance:
            raise InvMMError("The recipe has no guidance scale; an unconditional model needs the scale 1.0.")
        if not 0 <= min(self.guidance) <= max(self.guidance) <= MOST_GUIDANCE:
            raise InvMMError(f"The recipe's guidance is {self.guidance}; scales must be between 0 and {MOST_GUIDANCE}.")
        if len(set(self.guidance)) < len(self.guidance):
            raise InvMMError(f"The recipe's guidance is {self.guidance}; give each scale once.")

    def changed(self, **changes: Any) -> "Recipe":
        """This recipe with other values, and their names and values added to its name.

        Raises:
            InvMMError: A setting is unknown, or a value out of range.
        """
        known = {field.name for field in fields(self)} - {"name"}
        if unknown := sorted(set(changes) - known):
            raise InvMMError(f"A recipe has no setting {unknown[0]!r}; it has {', '.join(sorted(known))}.")
        differing = {key: value for key, value in changes.items() if value != getattr(self, key)}
        if not differing:
            return self
        return replace(self, name=self._name_with(differing), **differing)

    def beside(self, **parts: str) -> "Recipe":
        """This recipe with parts of an audit in its name that are not those it was published with."""
        return replace(self, name=self._name_with(parts)) if parts else self

    def _name_with(self, changes: Mapping[str, Any]) -> str:
        described = ", ".join(f"{key}={value}" for key, value in sorted(changes.items()))
        return f"{self.name}{', ' if ' with ' in self.name else ' with '}{described}"

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Recipe":
        """The recipe that a ``config.json`` holds, of this version of the package or an earlier one.

        The setting ``averaging`` of version 0.1 no longer exists and is left out; the recipe's name still has it.

        Raises:
            InvMMError: A setting is unknown or out of range.
        """
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in record.items()
        }
        values.pop("averaging", None)
        if values.get("first_dose"):
            values.setdefault("optimizer", "dose")
        if unknown := sorted(values.keys() - {field.name for field in fields(cls)}):
            raise InvMMError(f"This version of invmm-eval has no setting {unknown[0]!r} of a recipe; upgrade it.")
        return cls(**values)

    @classmethod
    def parse(cls, settings: list[str]) -> dict[str, Any]:
        """Parse ``KEY=VALUE`` texts into changes for :meth:`changed`.

        Raises:
            InvMMError: A text has no ``=``, a setting is unknown, or a value has the wrong type.
        """
        hints = {key: hint for key, hint in get_type_hints(cls).items() if key != "name"}
        readers: dict[Any, Callable[[str], Any]] = {
            int: int,
            float: float,
            bool: _truth,
            tuple[float, ...]: _floats,
            tuple[str, ...]: _names,
            float | None: float,
        }
        changes: dict[str, Any] = {}
        for setting in settings:
            key, equals, text = setting.partition("=")
            if not equals or key not in hints:
                raise InvMMError(f"{setting!r} is not KEY=VALUE with KEY one of {', '.join(sorted(hints))}.")
            try:
                changes[key] = readers.get(hints[key], str)(text)
            except (KeyError, ValueError):
                raise InvMMError(f"{text!r} is not a valid value of the recipe's {key}.") from None
        return changes


def _truth(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


def _floats(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


DDPM = Recipe(name="paper-ddpm", draws=32, check_every=50, delta=1e-4, sampler_steps=200, clip="none")
"""Pixel models at 32x32."""

LDM = Recipe(name="paper-ldm", draws=16, check_every=10, delta=5e-4, sampler_steps=50, clip="none")
"""Unconditional latent diffusion at 256x256."""

STABLE_DIFFUSION = Recipe(
    name="paper-sd",
    draws=16,
    check_every=50,
    delta=1e-3,
    sampler_steps=50,
    clip="none",
    guidance=(1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0),
)
"""Stable Diffusion 1.4 and 2.1."""

STABLE_DIFFUSION_3 = replace(
    STABLE_DIFFUSION, name="paper-sd3", guidance=(1.0, 2.0, 3.0, 4.0, 5.0), shared_context=False
)
"""Stable Diffusion 3.5 medium."""

DEMO = Recipe(name="demo", max_steps=250, draws=8, check_every=25, sampler_steps=25)
"""Short enough for a small pixel model on a CPU; the stopping rule is the paper's."""


FAST_STEPS = 10
"""Sampler steps of the recipe ``fast``, for models of many."""


def sampled(recipe: Recipe, published: Recipe) -> Recipe:
    """A recipe, with the samples of a model's own scheduler where the model is made for few steps.

    None of these is given up on the way: there is little to save, and how early they are decided is not known.
    """
    if published.sampler != "own":
        return recipe
    return replace(recipe, sampler="own", sampler_steps=published.sampler_steps, reject=-1.0)


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
        clip="model",
        optimizer="dose",
        first_dose=2.0,
        responses=64,
    )


def fast(published: Recipe) -> Recipe:
    """The one-shot search (docs/fast.md), up to 31 nats, with a family's published contexts.

    Of the published guidance scales it takes the least and the largest, besides the model without a prompt. For a model
    of few steps it takes more samples, for about the same rows: where noise is drawn at each step, fewer of them are
    copies.
    """
    scales = published.guidance
    more = max(1, FAST_STEPS // published.sampler_steps) if published.sampler == "own" else 1
    recipe = replace(
        published,
        name=f"fast-{published.name.removeprefix('paper-')}",
        optimizer="one-shot",
        criterion="any-sample",
        guidance=scales if scales == (1.0,) else tuple(sorted({0.0, min(scales), max(scales)})),
        estimators=("plain-share",),
        max_steps=4,
        check_every=1,
        draws=24,
        times="informative",
        first_weight=0.0,
        delta=0.0,
        check_images=4 * more,
        sampler="dpm-solver++",
        sampler_steps=FAST_STEPS,
        clip="model",
        reject=0.6,
        plain=512 * more,
        first_dose=2.0,
        growth=2.5,
        responses=20 * more,
    )
    return sampled(recipe, published)


RECIPES: Mapping[str, Callable[[Recipe], Recipe]] = {
    "fast": fast,
    "paper": lambda published: published,
    "dose": by_dose,
    "demo": lambda published: sampled(DEMO, published),
}
"""What people choose by name, made from the published settings of a family."""
