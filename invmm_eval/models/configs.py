"""The configs of a pipeline's parts: values of the types that their classes state, and sizes that can be computed.

Loading a pipeline takes nearly any value, and a text such as "false" counts as true.
"""

import inspect
from collections.abc import Mapping
from typing import Any, TypeGuard

import diffusers
from diffusers import ConfigMixin, SchedulerMixin
from PIL import Image
from transformers import PreTrainedTokenizerBase

from invmm_eval.errors import InvMMError
from invmm_eval.hints import is_plain, typed

_MOST_TIMES = 1_000_000


def check_parts(parts: Mapping[str, Any]) -> None:
    """Check the parts of a loaded pipeline.

    Raises:
        InvMMError: A part that it cannot do without is missing, or a config makes no sense.
    """
    for name, part in parts.items():
        if part is None and name in ("scheduler", "unet", "transformer", "vae", "vqvae", "movq"):
            raise InvMMError(f"The pipeline has no {name}; load it with all of its parts.")
        if isinstance(part, ConfigMixin):
            _check(name, type(part), part.config)
        if isinstance(part, PreTrainedTokenizerBase):
            _check_tokenizer(name, part, parts.get(name.replace("tokenizer", "text_encoder")))


def is_named(entry: object) -> TypeGuard[list[str]]:
    """Whether an entry of an index names a part's library and class."""
    return isinstance(entry, list) and len(entry) == 2 and all(isinstance(name, str) for name in entry)


def check_stored(model: object, index: Mapping[str, Any], revision: str | None) -> None:
    """Check the stored parts of a pipeline before they are loaded, since their sizes decide what is allocated.

    Args:
        model: A folder or a Hub id.
        index: Its ``model_index.json``.
        revision: Branch, tag or commit on the Hub.

    Raises:
        InvMMError: A config makes no sense.
    """
    for name, entry in index.items():
        kind: Any = getattr(diffusers, entry[1], None) if is_named(entry) and entry[0] == "diffusers" else None
        if ConfigMixin in getattr(kind, "mro", list)():
            try:
                config = kind.load_config(str(model), subfolder=name, revision=revision)
            except Exception:  # what is wrong is told by loading it
                continue
            if isinstance(config, Mapping):
                _check(name, kind, config)


def check_pixels(height: int, width: int) -> None:
    """Check that images of a model are not larger than those that can be read.

    Raises:
        InvMMError: They are.
    """
    limit = Image.MAX_IMAGE_PIXELS
    if limit and height * width > limit:
        raise InvMMError(
            f"The model's images would have {height:,} x {width:,} pixels, and none of more than {limit:,} is read; "
            "correct the sample_size in the config of its network, or the image_size if you gave one."
        )


def _check(part: str, kind: type, config: Mapping[str, Any]) -> None:
    for name, parameter in inspect.signature(kind).parameters.items():
        value, hint = config.get(name), parameter.annotation
        if value is None or (type(value) is type(parameter.default) and value == parameter.default):
            continue
        what = f"The {name} in the config of the model's {part}"
        if is_plain(hint):
            typed(value, hint, what)
        if name == "num_train_timesteps" and issubclass(kind, SchedulerMixin) and not 1 <= value <= _MOST_TIMES:
            raise InvMMError(f"{what} is {value}; a model has from 1 to {_MOST_TIMES:,} times.")
        if name == "sample_size":
            sides = [value, value] if type(value) is int else value
            if isinstance(sides, list | tuple) and len(sides) == 2 and all(type(side) is int for side in sides):
                if min(sides) < 1:
                    raise InvMMError(f"{what} is {value}; it must be above 0.")
                check_pixels(*sides)


def _check_tokenizer(name: str, tokenizer: Any, encoder: Any) -> None:
    """Check that a tokenizer has words, and that CLIP's encoder has the places to which pipelines pad each prompt."""
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise InvMMError(f"The model's {name} has no words, so that all prompts would be equal; restore its files.")
    if getattr(getattr(encoder, "config", None), "model_type", None) != "clip_text_model":
        return
    places, most = encoder.config.max_position_embeddings, tokenizer.model_max_length
    if not isinstance(most, int | float) or most > places:
        raise InvMMError(
            f"The model_max_length of the model's {name} is {most!r}, but its text encoder has {places} places; set it "
            f"to {places} in its tokenizer_config.json."
        )
