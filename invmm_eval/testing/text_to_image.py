"""Checks that a backbone serves a text-to-image pipeline of diffusers as the pipeline itself works."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from invmm_eval.errors import InvMMError
from invmm_eval.models.backbone import Backbone
from invmm_eval.models.condition import Context
from invmm_eval.testing.backbone import check_backbone
from invmm_eval.testing.promises import promise, seeded

CAPTION = "a red cat"
ROWS = 3


def check_text_to_image(
    make: Callable[..., Backbone],
    pipeline: Callable[[], Any],
    encode: Callable[[Any, str], Context],
    null: Callable[[Any], Context] | None = None,
) -> None:
    """Check prompt modes, checkpointing, precision and loading, and everything that :func:`check_backbone` checks.

    The backbone takes the options ``prompt_mode`` (``soft``, ``caption`` or ``empty``) and ``checkpointing``. Samples
    are not compared with those of the pipeline.

    Args:
        make: ``make(model, **options)`` returns the backbone of a folder or a loaded pipeline.
        pipeline: Builds a small pipeline, the same at every call, with float32 weights on the CPU.
        encode: The context that a pipeline itself computes from a text, with one row.
        null: The context of a pipeline for guidance; by default that of the empty text.

    Raises:
        BrokenPromise: Which promise is broken, and how to fix it, in one sentence.
    """
    _hold_prompts(make, pipeline, encode, null or (lambda loaded: encode(loaded, "")))
    _hold_checkpointing(make, pipeline)
    _hold_unchanged(make, pipeline, encode)
    half = make(pipeline().to(torch.bfloat16))
    dtypes = {_estimate(half).dtype, half.encode(torch.zeros(1, *half.image_shape)).dtype}
    promise(
        dtypes == {torch.float32} and half.settings.get("dtype") == "torch.bfloat16",
        f"A pipeline in bfloat16 gives x_0 in {sorted(map(str, dtypes))} and settings with the dtype "
        f"{half.settings.get('dtype')!r}; compute x_0 in float32, and record the precision of the network.",
    )
    with TemporaryDirectory() as folder:
        pipeline().save_pretrained(Path(folder) / "model")
        promise(
            _close(_estimate(make(Path(folder) / "model")), _estimate(make(pipeline()))),
            "A saved pipeline gives another estimate than the loaded one; load it by invmm_eval.plugin.load_pipeline.",
        )
    for mode in ("soft", "empty"):
        check_backbone(make(pipeline(), prompt_mode=mode))


def _hold_prompts(
    make: Callable[..., Backbone],
    pipeline: Callable[[], Any],
    encode: Callable[[Any, str], Context],
    null: Callable[[Any], Context],
) -> None:
    for mode, text in (("caption", CAPTION), ("empty", "")):
        loaded = pipeline()
        condition = make(loaded, prompt_mode=mode).condition(CAPTION)
        promise(
            not condition.parameters() and condition.prompt() == text,
            f"With prompt_mode={mode} the prompt is {condition.prompt()!r}, with {len(condition.parameters())} "
            f"parameters; return FixedPrompt with {text!r}.",
        )
        promise(
            _same(condition.rsample(2, seeded()), encode(loaded, text)),
            f"With prompt_mode={mode} the context differs from what the pipeline computes; encode the text with "
            "encode_prompt of the pipeline.",
        )
    for mode in ("soft", "caption", "empty"):
        loaded = pipeline()
        promise(
            _same(make(loaded, prompt_mode=mode).condition(CAPTION).null(ROWS), null(loaded)),
            f"With prompt_mode={mode} the null context differs from the pipeline's; compute it with encode_prompt.",
        )
    _hold_error(lambda: make(pipeline(), prompt_mode="loud"), "An unknown prompt_mode", "check_prompt_mode")
    no_caption = make(pipeline(), prompt_mode="caption")
    _hold_error(no_caption.condition, "A missing caption with prompt_mode=caption", "fixed_text")


def _hold_error(call: Callable[[], object], what: str, remedy: str) -> None:
    try:
        call()
    except InvMMError:
        return
    promise(False, f"{what} is accepted; raise an error by invmm_eval.plugin.{remedy}.")


def _hold_checkpointing(make: Callable[..., Backbone], pipeline: Callable[[], Any]) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = make(pipeline(), checkpointing=checkpointing)
        condition = model.condition(CAPTION)
        x_t = _noise(model).requires_grad_()
        estimate = model.predict_x0(x_t, _times(model), condition.rsample(ROWS, seeded()))
        leaves = [x_t, *condition.parameters().values()]
        gradients.append(torch.autograd.grad(estimate.square().mean(), leaves))
    promise(
        all(_close(*pair) and bool(pair[0].any()) for pair in zip(*gradients, strict=True)),
        "With checkpointing the gradients are others than without; use enable_gradient_checkpointing of the network.",
    )


def _hold_unchanged(
    make: Callable[..., Backbone], pipeline: Callable[[], Any], encode: Callable[[Any, str], Context]
) -> None:
    loaded = pipeline()
    before, levels = encode(loaded, CAPTION), getattr(loaded.scheduler, "sigmas", None)
    model = make(loaded, checkpointing=True)
    model.condition(CAPTION).rsample(1, seeded())
    model.schedule.grid(3)
    after = encode(loaded, CAPTION)
    network = getattr(loaded, "transformer", None) or loaded.unet
    promise(
        all(torch.equal(after[name], tensor) for name, tensor in before.items())
        and getattr(loaded.scheduler, "sigmas", None) is levels
        and not network.is_gradient_checkpointing
        and all(parameter.requires_grad for parameter in loaded.text_encoder.parameters()),
        "The backbone changes the loaded pipeline; work on frozen copies of its parts (invmm_eval.plugin.frozen).",
    )


def _noise(model: Backbone) -> Tensor:
    shape = model.encode(torch.zeros(1, *model.image_shape)).shape[1:]
    return torch.randn((ROWS, *shape), generator=seeded(seed=1))


def _times(model: Backbone) -> Tensor:
    grid = model.schedule.grid(100)
    return grid[[0, len(grid) // 2, len(grid) - 2]]


def _estimate(model: Backbone) -> Tensor:
    with torch.no_grad():
        return model.predict_x0(_noise(model), _times(model), model.condition(CAPTION).rsample(ROWS, seeded()))


def _same(found: Context, expected: Context) -> bool:
    return found.keys() == expected.keys() and all(
        _close(tensor, expected[name].expand_as(tensor)) for name, tensor in found.items()
    )


def _close(found: Tensor, expected: Tensor) -> bool:
    return found.dtype == expected.dtype and torch.allclose(found, expected, rtol=1e-4, atol=1e-5)
