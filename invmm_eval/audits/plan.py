"""The plan of an audit: its model, similarity, noise family and recipe, found by name and loaded."""

import inspect
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch

from invmm_eval.audits.calibration import Calibration
from invmm_eval.audits.images import Source
from invmm_eval.audits.options import LOADING_OPTIONS, Choices, ModelOptions, with_options
from invmm_eval.audits.request import Request
from invmm_eval.device import find_device
from invmm_eval.errors import InvMMError
from invmm_eval.hints import is_plain, signature_of, typed
from invmm_eval.models.additions import Additions
from invmm_eval.models.backbone import Backbone
from invmm_eval.models.identity import model_identity
from invmm_eval.models.pipelines import load_pipeline, pipeline_class
from invmm_eval.models.quiet import without_bars
from invmm_eval.models.single_file import SingleFile, single_file
from invmm_eval.noise import NoiseFamily
from invmm_eval.plugins import builtin
from invmm_eval.plugins.host import host
from invmm_eval.recipe import RECIPES, Recipe
from invmm_eval.reference import name_of
from invmm_eval.search.engine import OnStep as OnStep
from invmm_eval.search.engine import invert
from invmm_eval.search.estimators import Estimator
from invmm_eval.search.result import Result
from invmm_eval.similarity import Similarity
from invmm_eval.similarity.near import NearCopies, split_options
from invmm_eval.similarity.sscd import WEIGHTS_VARIABLE

T = TypeVar("T")
_log = logging.getLogger(__name__)

_RESERVED = {"device", "dtype", "offload", "revision"}
"""Arguments of a maker that are not options of the part."""
_PUBLISHED_WITH = {"similarity": "sscd", "noise": "diagonal-gaussian"}
"""The parts that the paper's recipes were published with."""


@dataclass(frozen=True)
class Plan:
    """Everything that determines the values.

    Attributes:
        backbone: The model.
        similarity: Decides whether a sample is a replica.
        noise: The family of q.
        recipe: The settings.
        seed: Together with an image's pixels it determines all random numbers for that image.
        config: The same in words and numbers, as JSON can hold it.
        estimators: Those that the recipe names.
    """

    backbone: Backbone
    similarity: Similarity
    noise: NoiseFamily
    recipe: Recipe
    seed: int
    config: Mapping[str, Any]
    estimators: Sequence[Estimator] = ()

    @property
    def threshold(self) -> float:
        """beta: the recipe's if it has one, else the similarity's own."""
        return self.similarity.threshold if self.recipe.threshold is None else self.recipe.threshold

    @property
    def measure(self) -> Callable[..., Iterator[Result]]:
        """Measures images that are prepared: :func:`invmm_eval.invert` with all that determines the values."""
        return partial(
            invert,
            self.backbone,
            similarity=self.similarity,
            noise=self.noise,
            recipe=self.recipe,
            estimators=self.estimators,
            seed=self.seed,
        )


def no_captions(sources: Sequence[Source]) -> bool:
    """Whether there are images, and none has a caption."""
    return bool(sources) and all(source.caption is None for source in sources)


@without_bars()
def make_plan(
    model: ModelOptions,
    choices: Choices = Choices(),
    *,
    device: str | None = None,
    backbone: Backbone | None = None,
) -> Plan:
    """Load the model and find all other parts.

    Args:
        model: The model, and how it is loaded.
        choices: Similarity, noise family, recipe and seed.
        device: None takes CUDA if available, else the CPU.
        backbone: The loaded model; None loads it.

    Raises:
        InvMMError: A requested backbone, similarity, noise family, recipe, option or device is unknown or incompatible.
    """
    calibration = choices.calibration
    if isinstance(calibration, str | Path):
        calibration = Calibration.load(calibration)
    backbone = backbone or load(model, device)
    similarity = choices.similarity or default_similarity()
    if isinstance(similarity, str):
        own, near = split_options(choices.similarity_options)
        make = partial(host().similarity(similarity), device=backbone.device)
        similarity = named(made(make, similarity, own), "similarity", similarity)
        if near:
            similarity = made(partial(NearCopies, similarity), "Near copies", near)
    family = made(host().noise_family(choices.noise), choices.noise, choices.noise_options)
    recipe = _recipe(choices, backbone, similarity)
    estimators = [named(made(host().estimator(name), name, {}), "estimator", name) for name in recipe.estimators]
    config = {
        **model_config(model, backbone),
        "similarity": {"name": similarity.name, "threshold": similarity.threshold, **similarity.settings},
        "noise": {"name": choices.noise, **choices.noise_options},
        "recipe": asdict(recipe),
        "seed": choices.seed,
        "versions": versions(backbone, similarity.name, choices.noise, recipe.estimators),
    }
    if estimators:
        config["estimators"] = {estimator.name: dict(estimator.fields) for estimator in estimators}
    if calibration:
        if recipe.threshold is not None:
            raise InvMMError("The calibration sets the threshold; leave it out of the settings.")
        calibration.check_fit(config)
        recipe = recipe.changed(threshold=calibration.threshold)
        config |= {"recipe": asdict(recipe), "calibration": calibration.summary}
    return Plan(backbone, similarity, family, recipe, choices.seed, config, estimators)


def _recipe(choices: Choices, backbone: Backbone, similarity: Similarity) -> Recipe:
    """The recipe with its changed settings; a published one says in its name which parts are not the paper's."""
    recipe = choices.recipe
    if isinstance(recipe, str):
        if recipe not in RECIPES:
            raise InvMMError(f"There is no recipe {recipe!r}; choose one of {', '.join(RECIPES)}.")
        recipe = RECIPES[recipe](backbone.recipe)
    recipe = recipe.changed(**choices.settings)
    if isinstance(similarity, NearCopies) and "reject" not in choices.settings:
        recipe = recipe.changed(reject=-1.0)  # a sample that leans to a mirror image may become a copy
    if recipe.name.startswith("paper-"):
        parts = {"similarity": similarity.name, "noise": choices.noise}
        recipe = recipe.beside(**{part: name for part, name in parts.items() if name != _PUBLISHED_WITH[part]})
    if recipe.threshold is not None and not -1 <= recipe.threshold <= 1:
        raise InvMMError(f"The recipe's threshold is {recipe.threshold}; a similarity is between -1 and 1.")
    return recipe


def model_config(model: ModelOptions, backbone: Backbone) -> dict[str, Any]:
    """What a config says about the model."""
    single = _single_file(model)
    return {
        "model": model_name(model.source, model.revision),
        **weights_of(model, getattr(backbone, "identity", None)),
        "backbone": {
            **backbone.settings,
            **({"config": str(single.config)} if single else {}),
            "image_shape": list(backbone.image_shape),
        },
    }


def weights_of(model: ModelOptions, stated: str | None = None) -> dict[str, Any]:
    """The identity of a model, ``weights`` (None where it is not known), and the records of additions.

    Args:
        model: The model; its files are read unless its identity is stated.
        stated: The identity that its backbone states.
    """
    single = None if stated else _single_file(model)
    identity = single.identity if single else stated or model_identity(model.source, model.revision)
    return {**Additions(model.lora, model.embedding).records, "weights": identity}


def _single_file(model: ModelOptions) -> SingleFile | None:
    """The single file that the model is; a plugin's backbone may load files by itself."""
    if model.backbone and model.backbone not in builtin.register_backbones():
        return None
    return single_file(model.source, model.backbone_options.get("config"))


def versions(*parts: Any, **more: Any) -> dict[str, str]:
    """The versions of this package, of what it computes with, and of the plugins that provide the parts."""
    return {name: version(name) for name in ("invmm-eval", "torch", "diffusers")} | host().versions(*parts, **more)


@with_options(LOADING_OPTIONS)
def load_backbone(model: object, **options: Any) -> Backbone:
    """Load a model with the backbone that serves its pipeline's class, or with a named one.

    Args:
        model: Folder written by ``save_pretrained``, Hub id, ``.safetensors`` file with ``backbone_options``
            ``{"config": FOLDER}``, loaded diffusers pipeline, or ``reference``.
        **options: {options}

    Raises:
        InvMMError: A requested model, backbone, device, precision or option is unknown or incompatible.
    """
    request = Request.of(model, (), names=LOADING_OPTIONS, **options)
    return load(request.model, request.resources.device)


@without_bars()
@torch.inference_mode(mode=False)
def load(model: ModelOptions, device: str | None) -> Backbone:
    """Load a model, as :func:`load_backbone` does."""
    name = model.backbone
    how: dict[str, Any] = {"device": find_device(device), "dtype": getattr(torch, model.dtype)}
    source, options = model.source, dict(model.backbone_options)
    place = {**how, "device": torch.device("cpu")} if model.offload else how
    if single := _single_file(model):
        source = single.load(**place)
        options.pop("config", None)
    if added := Additions(model.lora, model.embedding):
        if not isinstance(model.source, str | Path):
            raise InvMMError("A loaded pipeline takes its LoRAs and tokens before; leave out lora and embedding.")
        source = load_pipeline(source, revision=model.revision, **place)
        added.add(source)
    entry = host().backbone(name) if name else host().backbone_for(pipeline_class(source, model.revision))
    if model.offload:
        if "offload" not in inspect.signature(entry.make).parameters:
            raise InvMMError("The model's backbone does not move weights; leave out offload.")
        how["offload"] = model.offload
    make = partial(entry.make, source, revision=model.revision, **how)
    backbone: Backbone = made(make, name or "The backbone", options)
    if (channels := backbone.image_shape[0]) not in (1, 3):
        raise InvMMError(f"The model's images have {channels} channels; only grey (1) and RGB (3) are supported.")
    return backbone


def model_name(model: object, revision: str | None = None) -> str:
    """The name of a model in records: its path or Hub id, with the revision, or the class of a loaded pipeline."""
    name = name_of(model) if isinstance(model, str | Path) else type(model).__name__
    return f"{name}@{revision}" if revision else name


def default_similarity() -> str:
    """``sscd`` if the environment names its weights, else ``pixel-cosine``, with a warning, once per process."""
    if os.environ.get(WEIGHTS_VARIABLE):
        return "sscd"
    _warn_without_sscd()
    return "pixel-cosine"


@cache
def _warn_without_sscd() -> None:
    _log.warning(
        "%s is not set, so images are compared by pixel-cosine, not by SSCD: it is adequate up to 64x64 pixels.",
        WEIGHTS_VARIABLE,
    )


def named(part: T, kind: str, name: str) -> T:
    """The part, if it has the name it is registered under: records have its own, and find its package by it."""
    if (own := getattr(part, "name", None)) != name:
        raise InvMMError(
            f"The {kind} that is registered as {name!r} has the name {own!r}; its plugin must use one name for both."
        )
    return part


def made(maker: Callable[..., Any], name: str, options: Mapping[str, Any]) -> Any:
    """What a maker makes with options; unknown ones and values of the wrong type are reported before it is called."""
    try:
        parameters = signature_of(maker).parameters.values()
    except ValueError as error:
        given = ", ".join(getattr(maker, "keywords", ()))
        raise InvMMError(f"{name} is made with the arguments {given}; its maker must take them all.") from error
    known = {each.name for each in parameters if each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)}
    is_open = any(each.kind is each.VAR_KEYWORD for each in parameters)
    free = set(options) - _RESERVED if is_open else set()
    if unknown := sorted(options.keys() - (known - _RESERVED) - free):
        available = ", ".join(sorted(known - _RESERVED)) or "none"
        raise InvMMError(f"{name} has no option {unknown[0]!r}; its options are: {available}.")
    for parameter in parameters:
        if parameter.default is parameter.empty and parameter.name in known - options.keys():
            raise InvMMError(f"{name} needs the option {parameter.name!r}.")
    hints = {parameter.name: parameter.annotation for parameter in parameters if is_plain(parameter.annotation)}
    checked = {key: typed(options[key], hint, f"{name}'s {key}") for key, hint in hints.items() if key in options}
    try:
        return maker(**{**options, **checked})
    except SystemExit as error:
        raise InvMMError(f"{name} cannot be made: it ended the process with {error.code!r}.") from error
    except TypeError as error:
        if not options:
            raise
        chosen = ", ".join(sorted(options.keys() - _RESERVED)) or "none"
        raise InvMMError(f"{name} does not accept these options ({chosen}): {error}.") from error
