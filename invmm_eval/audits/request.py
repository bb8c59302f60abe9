"""The request of an audit: the model, the choices, the resources and the images, and its record in the folder.

The record is flat: each option by its name, with ``model``, ``images`` and ``captions``. :func:`command` makes the
command line of it that reproduces the audit. This module does not import torch until images are listed.
"""

import re
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invmm_eval.audits.launched import launched
from invmm_eval.audits.options import (
    ALL_OPTIONS,
    OPTIONS,
    SET_OPTIONS,
    Choices,
    Extent,
    ModelOptions,
    Output,
    Resources,
    Screen,
    unknown,
)
from invmm_eval.errors import InvMMError
from invmm_eval.recipe import DDPM, LDM, RECIPES, STABLE_DIFFUSION, STABLE_DIFFUSION_3, Recipe, fast
from invmm_eval.reference import name_of
from invmm_eval.search.upgrade import PLAIN_SHARE

if TYPE_CHECKING:
    from invmm_eval.audits.images import Source

_HUB_ID = re.compile(r"((?:[\w.-]+/)?[\w.-]+)@(.+)")
"""A Hub id with a revision; a folder is named by its path as it is."""
_PUBLISHED = (DDPM, LDM, STABLE_DIFFUSION, STABLE_DIFFUSION_3)
_RECIPES = {made(one).name: (name, made(one)) for name, made in RECIPES.items() for one in _PUBLISHED}


@dataclass(frozen=True, kw_only=True)
class Request:
    """What an audit was requested to measure, and how.

    Attributes:
        model: The model, and how it is loaded.
        choices: What determines the values besides the model.
        resources: What the audit runs on.
        output: What the folder gets.
        images: The images, as :func:`invmm_eval.find_images` takes them.
        captions: The texts, one per image, or where they are.
        screen: What ranks the images.
        extent: How many of them are searched; None searches all.
    """

    model: ModelOptions
    choices: Choices = Choices()
    resources: Resources = Resources()
    output: Output = Output()
    images: Any = ()
    captions: str | Sequence[str | None] | None = None
    screen: Screen = field(default_factory=Screen)
    extent: Extent | None = None

    @classmethod
    def of(
        cls, model: object, images: Any, captions: Any = None, /, *, names: Collection[str] = OPTIONS, **options: Any
    ) -> "Request":
        """The request of a face with flat options.

        Args:
            model: Folder, Hub id or loaded pipeline.
            images: The images.
            captions: The texts, or where they are.
            names: The options that the face offers; those of a whole set make the request one of a whole set.
            **options: Their values; what is left out takes its default, as does None for KEY=VALUE options.

        Raises:
            InvMMError: There is no such option, a value is out of its range, or the recipe does not decide which images
                of a whole set are memorized.
        """
        if isinstance(images, Iterator) and not hasattr(images, "seekable"):  # they are listed more than once
            images = list(images)
        if missing := sorted(options.keys() - set(names)):
            raise unknown(missing[0], names)
        chosen = {key: value for key, value in options.items() if not (value is None and ALL_OPTIONS[key].repeatable)}

        def of(kind: type[Any]) -> dict[str, Any]:
            return {option.name: chosen[option.name] for option in fields(kind) if option.name in chosen}

        request = cls(
            model=ModelOptions(source=model, **of(ModelOptions)),
            choices=Choices(**of(Choices)),
            resources=Resources(**of(Resources)),
            output=Output(**of(Output)),
            images=images,
            captions=captions,
            screen=Screen(**of(Screen)),
            extent=Extent(**of(Extent)) if "control" in names else None,
        )
        if request.extent:
            request.require_share()
        return request

    @cached_property
    def sources(self) -> list["Source"]:
        """The images, listed but not read.

        Raises:
            InvMMError: There is no such file, folder, dataset, column or caption, or no image in it.
        """
        from invmm_eval.audits.images import find_images

        return find_images(self.images, captions=self.captions)

    @property
    def expected(self) -> int:
        """The number of images; an estimate if only a shard of them is audited, and 0 in ranks that do not lead."""
        if not launched()[1]:
            return 0
        shard = self.output.part()
        return round(len(self.sources) / shard.of) if shard else len(self.sources)

    @property
    def estimates_share(self) -> bool:
        """Whether a search estimates the share of plain samples that are copies, as far as is known before loading."""
        settings = {**vars(self._recipe), **self.choices.settings}
        return PLAIN_SHARE in settings["estimators"] or bool(settings["confirm"])

    @property
    def _recipe(self) -> Recipe:
        """The recipe for a model of pixels, whose estimators are those for any model."""
        chosen = self.choices.recipe
        return chosen if isinstance(chosen, Recipe) else RECIPES.get(chosen, fast)(DDPM)

    def require_share(self) -> None:
        """Check that a search decides whether an image is memorized, before anything is loaded.

        Raises:
            InvMMError: It does not.
        """
        if not self.estimates_share:
            raise InvMMError(
                f"The recipe {self._recipe.name} does not estimate the share of plain samples that are copies, which "
                "decides whether an image is memorized; choose fast, or set confirm=100."
            )

    def record(self) -> dict[str, Any]:
        """The request as JSON can hold it. Images and captions that are not text are None, objects their names."""
        whole = (self.screen, self.extent) if self.extent else ()
        parts = (self.model, self.choices, self.resources, self.output, *whole)
        values = {option.name: getattr(part, option.name) for part in parts for option in fields(part)}
        model = values.pop("source")
        if not isinstance(values["similarity"], str | None):
            values["similarity"] = values["similarity"].name
        if not isinstance(values["calibration"], str | Path | None):
            values["calibration"] = values["calibration"].summary
        return {
            "model": name_of(model) if isinstance(model, str | Path) else type(model).__name__,
            "images": _texts(self.images),
            "captions": self.captions if isinstance(self.captions, str) else _texts(self.captions or None),
            **{name: _plain(value) for name, value in values.items()},
        }


def _texts(values: Any) -> list[str] | None:
    values = [values] if isinstance(values, str | Path) else values
    if isinstance(values, Sequence) and all(isinstance(value, str | Path) for value in values):
        return [str(value) for value in values]
    return None


def _plain(value: Any) -> Any:
    """A value as JSON holds it."""
    if isinstance(value, Recipe):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value if isinstance(value, str | int | float | None) else str(value)


def rebuilt(config: Mapping[str, Any], *, captions: bool) -> dict[str, Any]:
    """The record of a request that was not kept, as far as its audit's config, and whether it has captions, say."""
    at_revision = _HUB_ID.fullmatch(config["model"])
    model, revision = at_revision.groups() if at_revision else (config["model"], None)
    similarity, noise, backbone = (dict(config[part]) for part in ("similarity", "noise", "backbone"))
    return {
        "model": model,
        "images": None,
        "captions": "CAPTIONS" if captions else None,
        "revision": revision,
        "backbone": backbone.get("name"),
        "dtype": str(backbone.get("dtype", "float32")).removeprefix("torch."),
        "backbone_options": _without(backbone, "name", "dtype", "image_shape", "pipeline", "proved"),
        "similarity": similarity["name"],
        "similarity_options": _without(similarity, "name", "threshold"),
        "noise": noise["name"],
        "noise_options": _without(noise, "name"),
        "recipe": config["recipe"],
        "seed": config["seed"],
    }


def _without(settings: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in names and value is not None}


def published(record: Mapping[str, Any], *, local_model: bool) -> dict[str, Any]:
    """The record of a request as strangers may see it: without local paths; of a local model its name is kept."""
    hidden = {**record, "images": None}
    if local_model:
        hidden["model"] = without_path(record["model"])
    if isinstance(record.get("captions"), list):
        hidden["captions"] = "CAPTIONS"
    for name in ("lora", "embedding"):
        if record.get(name):
            hidden[name] = ",".join(Path(part).name for part in record[name].split(","))
    if record.get("calibration"):
        hidden["calibration"] = "CALIBRATION"
    for name, value in hidden.items():
        if isinstance(value, Mapping):
            hidden[name] = {
                key: Path(part).name if isinstance(part, str) and Path(part).is_absolute() else part
                for key, part in value.items()
            }
    return hidden


def without_path(model: str) -> str:
    """The name of a local model's folder; one that is all path, such as ``.``, stays, as there is no name."""
    return Path(model).name or model


def command(record: Mapping[str, Any]) -> str:
    """The command that reproduces the audit of a request's record, one option per line.

    ``FOLDER`` stands for the output folder, and ``IMAGES``, ``CAPTIONS`` and ``CALIBRATION`` for what is not known.
    """
    words = [("--model", record["model"])]
    words += [("--images", image) for image in record["images"] or ["IMAGES"]]
    words.append(("--out", "FOLDER"))
    if captions := record["captions"]:
        words.append(("--captions", captions if isinstance(captions, str) else "CAPTIONS"))
    for name, option in SET_OPTIONS.items():
        value = record.get(name, option.default)
        if name == "recipe":
            words += _recipe(value)
        elif name == "calibration" and isinstance(value, Mapping):
            words.append((option.flag, "CALIBRATION"))
        elif name == "workers" and value == "ranks":
            continue  # torchrun starts them
        elif option.repeatable:
            words += [(option.flag, f"{key}={_text(part)}") for key, part in (value or {}).items()]
        elif value != option.default:
            words.append((option.flag, str(value)))
    return " \\\n  ".join(
        [
            f"invmm-eval {'audit' if 'control' in record else 'run'}",
            *(f"{flag} {shlex.quote(value)}" for flag, value in words),
        ]
    )


def _recipe(recipe: str | Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """A recipe by name; one that has no name of its own as changes to the recipe that its name begins with."""
    if isinstance(recipe, str):
        yield OPTIONS["recipe"].flag, recipe
        return
    name, base = _RECIPES.get(recipe["name"].split(" with ")[0], ("paper", None))
    known = _plain(base) if base else {}
    yield OPTIONS["recipe"].flag, name
    for key, value in _plain(recipe).items():
        if key != "name" and value is not None and (key not in known or value != known[key]):
            yield OPTIONS["settings"].flag, f"{key}={_text(value)}"


def _text(value: Any) -> str:
    text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return text.lower() if isinstance(value, bool) else text
