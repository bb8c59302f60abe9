"""What a pipeline must show before it is audited; one that does not is refused with one sentence."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils.memory import should_reduce_batch_size
from torch import Generator, Tensor, nn

from invmm_eval.errors import InvMMError
from invmm_eval.models.backbone import Backbone
from invmm_eval.models.condition import Context, rows
from invmm_eval.models.hooked import hooked
from invmm_eval.models.pipelines import first_line
from invmm_eval.models.schedule import broadcast

LEVELS = ("quick", "full")
_GIVEN = "; take prompt_mode=caption or prompt_mode=empty"
_WITHOUT = f"{_GIVEN} with the recipe fast, which then needs no gradient"

TOLERANCE = 0.01
"""Relative difference up to which two results count as equal, which allows for half precision."""
_ROUNDING = 1e-5


def prove(
    backbone: Backbone,
    name: str,
    level: str,
    caption: str,
    reconstruct: Callable[[Tensor], Tensor],
    sampled: Callable[..., Any],
    modules: Iterable[nn.Module],
) -> tuple[str, str | None]:
    """Hold a pipeline to its promises.

    Gradients are asked for only where the prompt is searched; without them some searches of noise are possible.

    Args:
        backbone: The pipeline as a backbone.
        name: What messages call it.
        level: ``quick`` or ``full``; full also compares two sampling steps with the pipeline's own.
        caption: A caption that it can take.
        reconstruct: The autoencoder's own reconstruction of images.
        sampled: Two steps of the pipeline's own loop, and of ours.
        modules: The networks that gradients go through.

    Returns:
        The promises that were kept, as a text, and why no gradient reaches x_t, None where it does.

    Raises:
        InvMMError: The first promise that is broken.
    """
    images = torch.rand((2, *backbone.image_shape), generator=Generator().manual_seed(0)).to(backbone.device)
    with torch.no_grad():
        x_0 = backbone.encode(images)
        _hold(
            near(backbone.decode(x_0[:1]), reconstruct(images[:1])),
            name,
            "decode(encode(x)) is not what its autoencoder makes of x",
        )
    condition = backbone.condition(caption)
    context = condition.rsample(2, Generator(backbone.device).manual_seed(0))
    grid = backbone.schedule.grid(8)
    t = grid[[2, len(grid) - 3]]
    noise = torch.randn(x_0.shape, generator=Generator().manual_seed(1)).to(backbone.device)
    _estimates(backbone, name, x_0, noise, t, context)
    parameters = list(condition.parameters().values())
    broken, remedy = _gradients(backbone, noise[:1], t[:1], rows(context, slice(1)), parameters, modules)
    _hold(not (broken and parameters), name, f"{broken}{remedy}")
    kept = ["autoencoder", "rows", "times", *([] if broken else ["gradient"])]
    if level == "full":
        with torch.no_grad():
            theirs, ours = sampled(noise[:1], rows(context, slice(1)))
        _hold(near(ours, theirs), name, "two steps of our sampler are not those of the pipeline's own loop")
        kept.append("samples")
    return ", ".join(kept), broken


def _estimates(backbone: Backbone, name: str, x_0: Tensor, noise: Tensor, t: Tensor, context: Context) -> None:
    with torch.no_grad():
        alpha_t, sigma_t = (broadcast(level, x_0) for level in backbone.schedule(t))
        x_t = alpha_t * x_0 + sigma_t * noise
        together = backbone.predict_x0(x_t, t, context)
        _hold(bool(together.isfinite().all()), name, "its estimates of x_0 are not finite")
        alone = [
            backbone.predict_x0(x_t[row : row + 1], t[row : row + 1], rows(context, slice(row, row + 1)))
            for row in (0, 1)
        ]
        _hold(near(together, torch.cat(alone)), name, "a row of a batch is not what the row gives alone")
        other = backbone.predict_x0(x_t, t[[1, 1]], context)
        _hold(near(other[1:], together[1:]), name, "another row's time changes a row")
        _hold(not torch.equal(other[:1], together[:1]), name, "a row does not depend on its own time")


def _gradients(
    backbone: Backbone, x_t: Tensor, t: Tensor, context: Context, parameters: list[Tensor], modules: Iterable[nn.Module]
) -> tuple[str | None, str]:
    """What is wrong with the gradients, and what to do where the prompt is searched."""
    try:
        with torch.inference_mode(mode=False), torch.enable_grad(), _stops(modules) as stops:
            leaf = x_t.clone().requires_grad_()
            estimate = backbone.predict_x0(leaf, t, context)
            if stops:
                return f"no gradient passes its quantised weights ({', '.join(sorted(stops))})", _WITHOUT
            if not estimate.requires_grad:
                return "no gradient reaches x_t", _WITHOUT
            first, *others = torch.autograd.grad(estimate.square().mean(), [leaf, *parameters], allow_unused=True)
    except RuntimeError as error:
        if should_reduce_batch_size(error):
            raise
        return f"its gradient ends in {type(error).__name__} ({first_line(error)})", _WITHOUT
    if not _usable(first):
        return "no usable gradient reaches x_t", _WITHOUT
    if _parallel(first, estimate.detach()):
        return "the gradient that reaches x_t is not the network's", _WITHOUT
    return None if all(map(_usable, others)) else "no usable gradient reaches the searched prompt", _GIVEN


def _usable(gradient: Tensor | None) -> bool:
    return gradient is not None and bool(gradient.isfinite().all()) and bool(gradient.any())


@contextmanager
def _stops(modules: Iterable[nn.Module]) -> Iterator[set[str]]:
    """The classes of the quantised weights that a gradient does not pass."""
    weights = {
        layer: type(weight).__name__
        for module in modules
        for layer in module.modules()
        for weight in layer.parameters(recurse=False)
        if type(weight) is not nn.Parameter
    }
    found = set[str]()

    def look(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        if args[0].requires_grad and not output.requires_grad:
            found.add(weights[layer])

    with hooked(weights, look):
        yield found


def _parallel(gradient: Tensor, estimate: Tensor) -> bool:
    """Whether the gradient of the estimate's square is the estimate's multiple, as it is for a constant network."""
    rest = gradient - (gradient * estimate).sum() / estimate.square().sum() * estimate
    return bool(rest.norm() <= _ROUNDING * gradient.norm())


def near(found: Tensor, expected: Tensor) -> bool:
    """Whether two tensors are equal up to :data:`TOLERANCE`."""
    return found.shape == expected.shape and bool((found - expected).norm() <= TOLERANCE * expected.norm())


def _hold(kept: bool, name: str, broken: str) -> None:
    if not kept:
        raise InvMMError(f"The backbone diffusers cannot serve this {name}: {broken}.")
