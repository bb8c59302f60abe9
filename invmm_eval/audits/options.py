# ruff: noqa: RUF009
"""The options of an audit: what is audited, what decides the values, and what it runs on.

Each option is a field of :class:`ModelOptions`, :class:`Choices` or :class:`Resources`, with its type, default and help
text; those of whole sets, of :class:`Screen` or :class:`Extent`. Below the faces (function, metric, integrations,
command line) these objects travel. A face offers the options flat and derives them from here, so that a new option is
written in this module alone:

- A Python function takes ``**options``, is decorated with :func:`with_options`, and has the line
  ``**options: {options}`` in its docstring. :meth:`~invmm_eval.audits.request.Request.of` sorts ``options`` into
  the objects.
- A face that has no Python signature takes its help from :func:`insert`.
- The command line makes one parameter of each :class:`Option` in :data:`OPTIONS`, with its ``flag``, ``metavar``,
  ``command_type``, ``default``, ``minimum`` and ``help``. A repeatable option is a list of KEY=VALUE texts.

This module imports neither torch nor any other part of the package that does.
"""

import inspect
import math
import re
import textwrap
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, runtime_checkable

from invmm_eval.audits.option import Option as Option
from invmm_eval.audits.option import check_values, option, options_of
from invmm_eval.audits.shards import Shard
from invmm_eval.errors import InvMMError, did_you_mean
from invmm_eval.hints import check_types
from invmm_eval.recipe import Recipe
from invmm_eval.reference import located

if TYPE_CHECKING:
    from invmm_eval.audits.calibration import Calibration
    from invmm_eval.similarity import Similarity

F = TypeVar("F", bound=Callable[..., Any])


@runtime_checkable
class _Similarity(Protocol):
    """What tells a similarity from a name, without importing torch."""

    compare: Any


@runtime_checkable
class _Calibration(Protocol):
    """What tells a calibration from a path."""

    check_fit: Any


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """The model that is audited, and how it is loaded.

    ``source`` is the folder that ``save_pretrained`` wrote, the Hub id, or the loaded diffusers pipeline; faces call it
    ``model``. The name ``reference`` becomes the folder of the reference model. See :data:`OPTIONS` for the other
    fields.
    """

    source: Any
    backbone: str | None = option(
        None, "Registered name of the backbone. By default the one that serves the pipeline's class."
    )
    revision: str | None = option(None, "Branch, tag or commit of a model on the Hub.")
    lora: str | None = option(
        None, "LoRAs to add: .safetensors file, folder or Hub id, or with a weight FILE:WEIGHT; separated by commas."
    )
    embedding: str | None = option(
        None,
        "Tokens of textual inversion to add: .safetensors file, folder or Hub id, or FILE:TOKEN; separated by commas.",
    )
    dtype: Literal["float32", "float16", "bfloat16"] = option(
        "float32", "Precision of the network: float32, float16 or bfloat16.", parse=str
    )
    offload: Literal["model", "group"] | None = option(
        None,
        "Keep weights in CPU memory: model moves each network to the device while it is needed, group each layer.",
        parse=str,
    )
    backbone_options: Mapping[str, Any] = option(
        dict, "Options of the backbone, for example prompt_mode=caption.", flag="--backbone-option"
    )

    def __post_init__(self) -> None:
        check_types(self)
        object.__setattr__(self, "source", located(self.source))


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What decides the values besides the model. See :data:`OPTIONS` for the fields."""

    similarity: "str | Similarity | None" = option(
        None,
        "Registered name of the similarity that decides whether a sample is a replica, for example sscd, "
        "pixel-cosine or ssim. By default sscd if INVMM_SSCD_WEIGHTS names its weights, else pixel-cosine.",
        parse=str,
        python="It may also be an object.",
    )
    similarity_options: Mapping[str, Any] = option(
        dict,
        "Options of the similarity, for example side=64; with any one flip=true, shift=2 and crop=0.8, by which "
        "mirrored, shifted and cropped copies count too.",
        flag="--similarity-option",
    )
    noise: str = option("diagonal-gaussian", "Registered name of the noise family that q is from.")
    noise_options: Mapping[str, Any] = option(dict, "Options of the noise family.", flag="--noise-option")
    recipe: str | Recipe = option(
        "fast",
        "Settings of the search: fast (few samples along a direction that needs no gradient), paper (published for "
        "the model's family), dose (search by dose) or demo (short, for small models).",
        parse=str,
        python="It may also be a Recipe.",
    )
    settings: Mapping[str, Any] = option(dict, "Changes to the settings of the recipe.", flag="--set")
    calibration: "Calibration | str | Path | None" = option(
        None, "Calibration that sets the similarity threshold, as written by calibrate.", parse=Path
    )
    seed: int = option(0, "Seed. Together with an image's pixels it determines all random numbers for that image.")

    def __post_init__(self) -> None:
        check_types(self, names={"Similarity": _Similarity, "Calibration": _Calibration})


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What an audit runs on. Values do not depend on it, up to the rounding of the hardware. See :data:`OPTIONS`."""

    device: str | None = option(
        None, "Device, for example cpu, cuda or cuda:1. By default CUDA if available, else CPU."
    )
    workers: "int | Literal['ranks'] | None" = option(
        None,
        "Number of Ray processes, on this machine or on the cluster that RAY_ADDRESS names. By default this process "
        "alone.",
        python="'ranks' stands for the processes that torchrun started: each must make the same call, and only rank 0 "
        "has results.",
        parse=int,
        minimum=1,
    )
    batch_size: int = option(8, "Number of images searched together, per worker.", minimum=1)
    micro_batch: int | None = option(
        None, "Maximum batch size of a network call. By default the number of draws of one image.", minimum=1
    )

    def __post_init__(self) -> None:
        check_values(self)


@dataclass(frozen=True, kw_only=True)
class Screen:
    """What ranks images before a search. See :data:`SET_OPTIONS` for the fields."""

    detector: str = option(
        "denoising-loss",
        "Registered name of the detector that ranks the images: denoising-loss, mirrored-loss, secmi, pia, "
        "caption-magnitude, sharpness or that of a plugin.",
    )
    detector_options: Mapping[str, Any] = option(
        dict, "Options of the detector, for example draws=8.", flag="--detector-option"
    )

    def __post_init__(self) -> None:
        check_types(self)


@dataclass(frozen=True, kw_only=True)
class Extent:
    """How many images of a set are searched. See :data:`SET_OPTIONS` for the fields."""

    budget: "str | int | None" = option(
        None,
        "What the audit may cost, earlier runs included: a number of network rows such as 200000, or hours such as 2h. "
        "It ends the search of suspects; what the control sample will cost is kept back. By default no limit.",
        parse=str,
    )
    control: int = option(
        59,
        "Number of images of the control sample. If none of 59 is memorized, fewer than 5 % of the others are.",
        minimum=0,
    )
    clean: int = option(
        20, "Number of images in a row that are not memorized after which no further suspects are searched.", minimum=1
    )

    def __post_init__(self) -> None:
        check_values(self)
        self.limit()

    def limit(self) -> "tuple[float, Literal['rows', 'seconds']]":
        """The budget as a number of rows or of seconds; without one infinitely many rows.

        Raises:
            InvMMError: It is neither.
        """
        if self.budget is None:
            return math.inf, "rows"
        read = re.fullmatch(r"(\d+(?:\.\d+)?)(h?)", str(self.budget))
        if not read or not float(read[1]):
            raise InvMMError(f"The budget is {self.budget!r}; give network rows such as 200000, or hours such as 2h.")
        return (3600 * float(read[1]), "seconds") if read[2] else (float(read[1]), "rows")


@dataclass(frozen=True, kw_only=True)
class Output:
    """What the folder of an audit gets. See :data:`RUN_OPTIONS` for the fields."""

    shard: str | None = option(
        None,
        "Only the K-th of N parts of the images, given as K/N; merge puts the folders of all parts together. The "
        "digest of its pixels decides which part an image is in.",
    )
    keep: Literal["all", "replicated", "nothing"] = option(
        "all",
        "Of which images the folder keeps the noise that was found, the samples and their picture: all, replicated or "
        "nothing. Rows are kept of all.",
        parse=str,
    )

    def __post_init__(self) -> None:
        check_values(self)
        self.part()

    def part(self) -> Shard | None:
        """The part; None for all images.

        Raises:
            InvMMError: The text is not K/N.
        """
        return None if self.shard is None else Shard.parse(self.shard)


KINDS = (ModelOptions, Choices, Resources)


OPTIONS = options_of(*KINDS)
"""All options of a search but the model itself, by name, in the order in which faces list them."""
LOADING_OPTIONS = options_of(ModelOptions) | {"device": OPTIONS["device"]}
"""Those of a model alone."""
RUN_OPTIONS = OPTIONS | options_of(Output)
"""Those of an audit of all images."""
SCREEN_OPTIONS = (
    options_of(ModelOptions, Screen)
    | {name: OPTIONS[name] for name in ("seed", *options_of(Resources))}
    | {"shard": RUN_OPTIONS["shard"]}
)
"""Those of a screening."""
SET_OPTIONS = options_of(Extent, Screen) | RUN_OPTIONS
"""Those of an audit of a whole set."""
ALL_OPTIONS = options_of(*KINDS, Output, Screen, Extent)


def offered(names: Collection[str]) -> Iterator[Option]:
    """The options of these names; a mapping has them."""
    options = names if isinstance(names, Mapping) else ALL_OPTIONS
    return (option for name, option in options.items() if name in names)


def unknown(name: str, names: Collection[str]) -> InvMMError:
    """What is said of an option that a face does not offer."""
    if name in Recipe.__dataclass_fields__:
        return InvMMError(
            f"There is no option {name!r}; to change this setting of the recipe write settings={{{name!r}: ...}}."
        )
    return InvMMError(f"There is no option {name!r}{did_you_mean(name, names)}; the options are {', '.join(names)}.")


def with_options(names: Collection[str] = OPTIONS) -> Callable[[F], F]:
    """Decorate a function: its signature and docstring show the options in place of ``**options``.

    Variable keywords of another name stay in the signature. The function itself is returned, not a wrapper.

    Args:
        names: The options that the function takes.
    """
    keywords = [
        inspect.Parameter(
            option.name, inspect.Parameter.KEYWORD_ONLY, default=option.default, annotation=option.annotation
        )
        for option in offered(names)
    ]

    def decorate(function: F) -> F:
        signature = inspect.signature(function)
        own = [parameter for parameter in signature.parameters.values() if parameter.name != "options"]
        rest = [parameter for parameter in own if parameter.kind is inspect.Parameter.VAR_KEYWORD]
        parameters = [*own[: len(own) - len(rest)], *keywords, *rest]
        function.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        if function.__doc__:
            function.__doc__ = insert(function.__doc__, names)
        return function

    return decorate


def insert(docstring: str, names: Collection[str] = OPTIONS) -> str:
    """A docstring with the name, type, text and default of each option in place of ``**options: {options}``."""

    def described(line: re.Match[str]) -> str:
        indent = line[1]
        wrapper = textwrap.TextWrapper(
            120, initial_indent=indent, subsequent_indent=f"{indent}    ", break_on_hyphens=False
        )
        return "\n".join(wrapper.fill(_described(option)) for option in offered(names))

    return re.sub(r"( *)\*\*options: \{options\}", described, docstring)


def _described(option: Option) -> str:
    kind = option.annotation if isinstance(option.annotation, str) else inspect.formatannotation(option.annotation)
    default = "" if option.default is None or option.repeatable else f" Defaults to {option.default!r}."
    text = " ".join(filter(None, (option.help, option.python)))
    return f"{option.name} ({re.sub(r'[a-z_.]+[.](?=[A-Z])', '', kind)}): {text}{default}"
