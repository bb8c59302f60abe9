"""Each promise of a text-to-image backbone is broken by a fake that breaks no other."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from invmm_eval.models.generic.families import StableDiffusion
from invmm_eval.plugin import Backbone, Context
from invmm_eval.testing import BrokenPromise, check_text_to_image, tiny
from tests.helpers.breaches import Breach, after, sets


def make(model: object, **options: Any) -> Backbone:
    return StableDiffusion(model, revision=None, device=torch.device("cpu"), dtype=torch.float32, **options)


@torch.no_grad()
def encode(pipeline: Any, text: str) -> Context:
    return {"prompt-0-0": pipeline.encode_prompt(text, torch.device("cpu"), 1, False)[0]}


def breach(change: Breach, **only: Any) -> Callable[..., Backbone]:
    """Makes a backbone that is changed if it is made with these options."""

    def make_broken(model: object, **options: Any) -> Any:
        made = make(model, **options)
        return change(made) if only.items() <= options.items() else made

    return make_broken


def unchecked(model: object, prompt_mode: str = "soft", **options: Any) -> Backbone:
    return make(model, prompt_mode="empty" if prompt_mode == "loud" else prompt_mode, **options)


def without_caption(model: Any) -> Any:
    condition = model.condition
    return sets(condition=lambda caption=None: condition(caption or "a dog"))(model)


def other(context: Context) -> Context:
    return {name: tensor + 0.1 for name, tensor in context.items()}


def training(model: object, **options: Any) -> Backbone:
    if not isinstance(model, str) and hasattr(model, "text_encoder"):
        model.text_encoder.requires_grad_(False)
    return make(model, **options)


def folder_differs(model: object, **options: Any) -> Any:
    made = make(model, **options)
    return made if hasattr(model, "unet") else after("predict_x0", lambda x_0: 2 * x_0)(made)


BROKEN: list[tuple[str, Callable[..., Backbone]]] = [
    (
        r"With prompt_mode=caption the prompt is 'a dog'",
        breach(after("condition", sets(prompt=lambda: "a dog")), prompt_mode="caption"),
    ),
    (
        r"With prompt_mode=empty the context differs",
        breach(after("condition", after("rsample", other)), prompt_mode="empty"),
    ),
    (
        r"With prompt_mode=soft the null context differs",
        breach(after("condition", after("null", other)), prompt_mode="soft"),
    ),
    (r"An unknown prompt_mode is accepted", unchecked),
    (r"A missing caption .* is accepted", breach(without_caption, prompt_mode="caption")),
    (
        r"With checkpointing the gradients are others",
        breach(after("predict_x0", lambda x_0: 2 * x_0), checkpointing=True),
    ),
    (r"changes the loaded pipeline", training),
    (r"gives x_0 in \['torch.bfloat16', 'torch.float32'\]", breach(after("encode", lambda x_0: x_0.bfloat16()))),
    (r"the dtype None", breach(sets(settings={"name": "fake"}))),
    (r"A saved pipeline gives another estimate", folder_differs),
    (r"The backbone's clip is 0", breach(sets(clip=0.0))),
]


@pytest.mark.parametrize(("sentence", "broken"), BROKEN)
def test_a_broken_promise_is_named(sentence: str, broken: Callable[..., Backbone]) -> None:
    with pytest.raises(BrokenPromise, match=sentence):
        check_text_to_image(broken, tiny.tiny_stable_diffusion, encode)
