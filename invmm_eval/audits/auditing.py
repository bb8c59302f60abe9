"""From names to results: find the parts, read the images, measure them, keep what was found.

model, similarity, noise and recipe by name  ->  Plan  ->  images one by one  ->  invert  ->  results, in a folder

An Order is what was asked for, before anything is loaded: many processes make the same plan from it.
"""

import inspect
import itertools
import logging
import math
import os
import statistics
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

import torch

from invmm_eval.audits.folder.writing import Store
from invmm_eval.audits.images import Source, find_images, prepare
from invmm_eval.audits.options import Resources
from invmm_eval.audits.workers import actors, ranks
from invmm_eval.errors import InvMMError
from invmm_eval.models.backbone import Backbone
from invmm_eval.models.identity import weights_identity
from invmm_eval.models.pipelines import pipeline_class
from invmm_eval.noise import NoiseFamily
from invmm_eval.plugins.host import host
from invmm_eval.recipe import DEMO, Recipe, by_dose
from invmm_eval.search.engine import invert
from invmm_eval.search.result import Result, Status
from invmm_eval.search.search import Search
from invmm_eval.search.target import Target
from invmm_eval.similarity import Similarity
from invmm_eval.similarity.sscd import WEIGHTS_VARIABLE

if TYPE_CHECKING:
    from invmm_eval.audits.calibration import Calibration

_log = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

_SET_HERE = {"device", "dtype", "revision"}
"""What a maker is given that is no option of a part."""

OnStep = Callable[[Sequence[Search]], None]
Workers = int | Literal["ranks"]


class Choices(TypedDict, total=False):
    """What may be chosen besides the model.

    Attributes:
        similarity: A registered name, or an object. None takes SSCD where ``INVMM_SSCD_WEIGHTS`` names its weights,
            else ``pixel-cosine``.
        similarity_options: For the similarity of that name.
        noise: The registered name of the family of q.
        noise_options: For the noise family of that name.
        recipe: ``paper`` (the backbone's published settings), ``dose`` (the search by dose), ``demo`` (a short one for
            small models), or a recipe.
        settings: Changes to the recipe.
        calibration: Sets the threshold; what :func:`invmm_eval.calibrate` found, or ``Calibration.load``
            read.
        seed: With an image's pixels it decides all its random numbers.
    """

    similarity: str | Similarity | None
    similarity_options: Mapping[str, Any]
    noise: str
    noise_options: Mapping[str, Any]
    recipe: str | Recipe
    settings: Mapping[str, Any]
    calibration: "Calibration | None"
    seed: int


@dataclass(frozen=True)
class Plan:
    """All that decides results: the parts, the settings, and how they are told in words.

    Attributes:
        backbone: The model.
        similarity: What decides whether a sample is a replica.
        noise: The family of q.
        recipe: The settings.
        seed: With an image's pixels it decides all its random numbers.
        config: The same in words and numbers, for the record.
    """

    backbone: Backbone
    similarity: Similarity
    noise: NoiseFamily
    recipe: Recipe
    seed: int
    config: Mapping[str, Any]

    @property
    def threshold(self) -> float:
        """beta: the recipe's, or else the similarity's own."""
        return self.similarity.threshold if self.recipe.threshold is None else self.recipe.threshold

    def run(
        self,
        sources: Sequence[Source],
        *,
        out: str | Path | None = None,
        batch_size: int = 8,
        micro_batch: int | None = None,
        on_step: OnStep | None = None,
    ) -> Iterator[Result]:
        """Measure images, yielding each result as it is ready.

        Args:
            sources: The images; one that cannot be read gives a failed result.
            out: A folder to keep results in. What it holds already is not measured again.
            batch_size: Images searched together.
            micro_batch: At most so many rows go through the network at once; None takes one image's draws.
            on_step: Called after each step with the searches under way.

        Raises:
            InvMMError: The folder cannot be used, or holds an audit with another config; or the model needs captions
                and no image has one.
        """
        if _lack_captions(sources):
            self.backbone.condition(None)  # one that needs a caption says so here, not image by image
        measure = partial(self.measure, batch_size=batch_size, micro_batch=micro_batch, on_step=on_step)
        return _kept(measure, sources, self.backbone.image_shape, self.config, out)

    def measure(
        self,
        targets: Iterable[Target],
        *,
        batch_size: int = 8,
        micro_batch: int | None = None,
        on_step: OnStep | None = None,
    ) -> Iterator[Result]:
        """Search images that are prepared, as :func:`invmm_eval.search.engine.invert` does."""
        return invert(
            self.backbone,
            targets,
            self.similarity,
            self.noise,
            recipe=self.recipe,
            seed=self.seed,
            batch_size=batch_size,
            micro_batch=micro_batch,
            on_step=on_step,
        )


def _lack_captions(sources: Sequence[Source]) -> bool:
    return bool(sources) and all(source.caption is None for source in sources)


Measure = Callable[[Iterator[Target]], Iterator[Result]]
"""Measures images as it takes them; a result's index is the number of its image in this order."""


def _kept(
    measure: Measure,
    sources: Sequence[Source],
    image_shape: tuple[int, int, int],
    config: Mapping[str, Any],
    out: str | Path | None,
) -> Iterator[Result]:
    if out is None:
        yield from _measured(measure, sources, image_shape, None)
    else:
        with Store(out, config, [source.name for source in sources]) as store:
            yield from _measured(measure, sources, image_shape, store)


def _measured(
    measure: Measure, sources: Sequence[Source], image_shape: tuple[int, int, int], store: Store | None
) -> Iterator[Result]:
    """Measure what the store does not know; of images with the same pixels and caption one is searched for all."""
    settled: deque[Callable[[], Result]] = deque()
    searched: dict[int, tuple[str, str | None]] = {}
    places: dict[tuple[str, str | None], list[tuple[int, Target]]] = {}
    numbers = itertools.count()

    def targets() -> Iterator[Target]:
        for index, source in enumerate(sources):
            try:
                image = prepare(source.value, image_shape)
            except InvMMError as error:
                failed = Result(index, source.name, "", Status.FAILED, error=str(error))
                settled.append(partial(store.add, failed, None) if store else partial(replace, failed))
                continue
            target = Target(image, source.name, source.caption)
            if store and store.knows(index, target):
                settled.append(partial(store.result, index))
                continue
            picture = target.digest, target.caption
            places.setdefault(picture, []).append((index, target))
            if len(places[picture]) == 1:
                searched[next(numbers)] = picture
                yield target

    for found in measure(targets()):
        yield from _called(settled)
        for index, target in places.pop(searched.pop(found.index)):
            result = replace(found, index=index, name=target.name)
            yield store.add(result, target) if store else result
    yield from _called(settled)


def _called(settled: deque[Callable[[], Result]]) -> Iterator[Result]:
    """Results that took no search, as they turned up among the images."""
    while settled:
        yield settled.popleft()()


def load_backbone(
    model: object,
    *,
    backbone: str | None = None,
    revision: str | None = None,
    device: str | None = None,
    dtype: str = "float32",
    options: Mapping[str, Any] | None = None,
) -> Backbone:
    """A model behind the backbone that serves its pipeline's class, or behind the one that is named.

    Args:
        model: A folder, a Hub id, or a loaded pipeline.
        backbone: A registered name; None finds it by the pipeline's class.
        revision: Branch, tag or commit on the Hub.
        device: None takes CUDA where there is one, else the CPU.
        dtype: Precision of the network: float32, float16 or bfloat16.
        options: For the backbone, such as ``prompt_mode``.

    Raises:
        InvMMError: There is no such model, backbone, device, precision or option.
    """
    if dtype not in DTYPES:
        raise InvMMError(f"There is no precision {dtype!r}; take one of {', '.join(DTYPES)}.")
    entry = host().backbone(backbone) if backbone else host().backbone_for(pipeline_class(model, revision))
    make = partial(entry.make, model, revision=revision, device=find_device(device), dtype=DTYPES[dtype])
    return _made(make, backbone or "The backbone", options) if options else make()


def find_device(name: str | None) -> torch.device:
    """The device of that name, or the best there is.

    Raises:
        InvMMError: There is no such device here.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        probe = torch.zeros(1, device=name)
        probe.item()
    except (RuntimeError, AssertionError) as error:
        raise InvMMError(f"The device {name!r} cannot be used here; leave it out, or say cpu.") from error
    return probe.device


def make_plan(backbone: Backbone, model: object, revision: str | None = None, **choices: Unpack[Choices]) -> Plan:
    """Find all other parts for a backbone.

    Args:
        backbone: The model.
        model: What it was loaded from, for the record.
        revision: Branch, tag or commit on the Hub.
        **choices: See :class:`Choices`.

    Raises:
        InvMMError: There is no such part, recipe or setting.
    """
    if unknown := sorted(choices.keys() - Choices.__annotations__.keys()):
        there = ", ".join(Choices.__annotations__)
        if unknown[0] in Recipe.__dataclass_fields__:
            there += f"; as a setting of the recipe write settings={{{unknown[0]!r}: ...}}"
        raise InvMMError(f"There is no choice {unknown[0]!r}; there are {there}.")
    similarity = choices.get("similarity") or default_similarity()
    if isinstance(similarity, str):
        options = {"device": backbone.device, **choices.get("similarity_options", {})}
        similarity = _made(host().similarity(similarity), similarity, options)
    noise, noise_options = choices.get("noise", "diagonal-gaussian"), dict(choices.get("noise_options", {}))
    recipe = find_recipe(choices.get("recipe", "paper"), backbone).changed(**choices.get("settings", {}))
    seed = choices.get("seed", 0)
    config = {
        "model": model_name(model, revision),
        "weights": weights_identity(model, revision),
        "backbone": {**backbone.settings, "image_shape": list(backbone.image_shape)},
        "similarity": {"name": similarity.name, "threshold": similarity.threshold, **similarity.settings},
        "noise": {"name": noise, **noise_options},
        "recipe": asdict(recipe),
        "seed": seed,
        "versions": {name: version(name) for name in ("invmm-eval", "torch", "diffusers")}
        | host().versions(backbone, similarity.name, noise),
    }
    family = _made(host().noise_family(noise), noise, noise_options)
    plan = Plan(backbone, similarity, family, recipe, seed, config)
    calibration = choices.get("calibration")
    return calibration.applied(plan) if calibration else plan


def model_name(model: object, revision: str | None = None) -> str:
    """What records call a model: its path or Hub id, with the revision, or the class of a loaded pipeline."""
    name = str(model) if isinstance(model, str | Path) else type(model).__name__
    return f"{name}@{revision}" if revision else name


def default_similarity() -> str:
    """``sscd`` where its weights are named in the environment, else ``pixel-cosine``, with a word that says so."""
    if os.environ.get(WEIGHTS_VARIABLE):
        return "sscd"
    _log.warning(
        "No weights of SSCD were named, so images are compared by pixel-cosine: fair up to 64 pixels a side. "
        "For larger ones set %s.",
        WEIGHTS_VARIABLE,
    )
    return "pixel-cosine"


def find_recipe(recipe: str | Recipe, backbone: Backbone) -> Recipe:
    """A recipe by name: ``paper`` is the backbone's published one, ``dose`` the search by dose, ``demo`` the demo's.

    Raises:
        InvMMError: There is no such recipe.
    """
    if isinstance(recipe, Recipe):
        return recipe
    named = {"paper": backbone.recipe, "dose": by_dose(backbone.recipe), "demo": DEMO}
    if recipe not in named:
        raise InvMMError(f"There is no recipe {recipe!r}; take one of {', '.join(named)}.")
    return named[recipe]


def _made(maker: Callable[..., Any], name: str, options: Mapping[str, Any]) -> Any:
    """What a maker makes of options, of which a wrong one is told before it is called."""
    given = inspect.signature(maker).parameters.values()
    known = {parameter.name for parameter in given if parameter.kind is not parameter.VAR_KEYWORD}
    if len(known) == len(given) and (unknown := sorted(options.keys() - known)):
        there = ", ".join(sorted(known - _SET_HERE)) or "none"
        raise InvMMError(f"{name} has no option {unknown[0]!r}; it has {there}.")
    try:
        return maker(**options)
    except TypeError as error:
        told = ", ".join(sorted(options.keys() - _SET_HERE)) or "none"
        raise InvMMError(f"{name} cannot be made with these options ({told}): {error}.") from error


@dataclass(frozen=True)
class Order:
    """What was asked for, from which every process that takes part makes the same plan.

    Attributes:
        model: A folder that ``save_pretrained`` wrote, a Hub id, or a loaded pipeline of diffusers.
        backbone: The registered backbone; None finds it by the pipeline's class.
        revision: Branch, tag or commit on the Hub.
        dtype: Precision of the network: float32, float16 or bfloat16.
        backbone_options: For the backbone, such as ``prompt_mode``.
        choices: Similarity, noise family, recipe and seed.
    """

    model: object
    backbone: str | None = None
    revision: str | None = None
    dtype: str = "float32"
    backbone_options: Mapping[str, Any] | None = None
    choices: Choices = field(default_factory=lambda: Choices())

    def plan(self, device: str | None = None, *, captions: bool = True) -> Plan:
        """Load the model and find all other parts.

        Args:
            device: None takes CUDA where there is one, else the CPU.
            captions: Whether there are any; without, a model that needs them is refused.

        Raises:
            InvMMError: Something that was asked for does not exist or does not fit.
        """
        loaded = load_backbone(
            self.model,
            backbone=self.backbone,
            revision=self.revision,
            device=device,
            dtype=self.dtype,
            options=self.backbone_options,
        )
        if not captions:
            loaded.condition(None)
        return make_plan(loaded, self.model, self.revision, **self.choices)

    def run(
        self,
        sources: Sequence[Source],
        *,
        device: str | None = None,
        workers: Workers | None = None,
        out: str | Path | None = None,
        batch_size: int = 8,
        micro_batch: int | None = None,
        on_step: OnStep | None = None,
    ) -> Iterator[Result]:
        """Measure images in this process or in many, yielding each result as it is ready.

        Args:
            sources: The images; one that cannot be read gives a failed result.
            device: None takes CUDA where there is one, else the CPU.
            workers: So many processes of Ray, or ``ranks``: those that torchrun started, of which each must come here
                and only rank 0 has results. None takes this process alone.
            out: A folder to keep results in. What it holds already is not measured again.
            batch_size: Images searched together, by each worker.
            micro_batch: At most so many rows go through the network at once; None takes one image's draws.
            on_step: Called after each step with the searches under way; workers do not call it.

        Raises:
            InvMMError: Something that was asked for does not exist or does not fit.
        """
        if workers is None:
            alone = self.plan(device)
            yield from alone.run(sources, out=out, batch_size=batch_size, micro_batch=micro_batch, on_step=on_step)
            return
        order = self if workers == "ranks" else self._sendable()
        plan = partial(order.plan, captions=not _lack_captions(sources))
        resources = Resources(device=device, workers=workers, batch_size=batch_size, micro_batch=micro_batch)
        with (ranks if workers == "ranks" else actors)(plan, resources, len(sources)) as team:
            if team:
                yield from _kept(team.measure, sources, team.first.image_shape, team.first.config, out)

    def _sendable(self) -> "Order":
        similarity = self.choices.get("similarity") or default_similarity()
        for part, what in ((self.model, "model"), (similarity, "similarity")):
            if not isinstance(part, str | Path):
                raise InvMMError(
                    f"Workers load the {what} themselves, so a {type(part).__name__} cannot be sent to them; give a "
                    "folder, a Hub id or a registered name."
                )
        return replace(self, choices={**self.choices, "similarity": similarity})


def audit(
    model: object,
    images: Any,
    *,
    backbone: str | None = None,
    revision: str | None = None,
    device: str | None = None,
    dtype: str = "float32",
    backbone_options: Mapping[str, Any] | None = None,
    captions: str | Sequence[str | None] | None = None,
    workers: Workers | None = None,
    out: str | Path | None = None,
    batch_size: int = 8,
    micro_batch: int | None = None,
    on_step: OnStep | None = None,
    **choices: Unpack[Choices],
) -> list[Result]:
    """Measure how much a model memorized each of some images.

    Args:
        model: A folder that ``save_pretrained`` wrote, a Hub id, or a loaded pipeline of diffusers.
        images: A folder, a file, ``dataset:NAME[:split[:column]]``, a data set with an image column, or a list of
            paths, PIL images, arrays or tensors.
        backbone: The registered backbone; None finds it by the pipeline's class.
        revision: Branch, tag or commit on the Hub.
        device: None takes CUDA where there is one, else the CPU.
        dtype: Precision of the network: float32, float16 or bfloat16.
        backbone_options: For the backbone, such as ``prompt_mode``.
        captions: The texts, one an image, or where they are, as :func:`invmm_eval.audits.images.find_images` takes it.
        workers: So many processes of Ray, or ``ranks``: those that torchrun started, of which each must call this, and
            only rank 0 has results. None takes this process alone.
        out: A folder to keep results in, and to go on from.
        batch_size: Images searched together, by each worker.
        micro_batch: At most so many rows go through the network at once; None takes one image's draws.
        on_step: Called after each step with the searches under way; workers do not call it.
        **choices: Similarity, noise family, recipe and seed: see :class:`Choices`.

    Returns:
        One result an image, in their order. Where there is a folder, their tensors stay in it until they are looked at.

    Raises:
        InvMMError: Something that was asked for does not exist or does not fit.
    """
    measured = Order(model, backbone, revision, dtype, backbone_options, choices).run(
        find_images(images, captions=captions),
        device=device,
        workers=workers,
        out=out,
        batch_size=batch_size,
        micro_batch=micro_batch,
        on_step=on_step,
    )
    return sorted(measured, key=lambda result: result.index)


def summarize(results: Sequence[Result]) -> dict[str, float | int | None]:
    """What a set of results says as a whole; fractions and medians are over the images that did not fail.

    ``median_invmm`` is infinite unless more than half of the images were replicated, and None where all failed.
    """
    measured = [result for result in results if result.status is not Status.FAILED]
    replicated = [result.invmm for result in measured if result.status is Status.REPLICATED]
    return {
        "images": len(results),
        "replicated": len(replicated),
        "failed": len(results) - len(measured),
        "replicated_fraction": len(replicated) / len(measured) if measured else None,
        "median_invmm": statistics.median(result.invmm for result in measured) if measured else None,
        "smallest_invmm": min(replicated, default=math.inf) if measured else None,
    }
