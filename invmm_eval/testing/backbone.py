"""Checks that a backbone, its schedule and its conditions keep the promises of their protocols."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from invmm_eval.errors import InvMMError
from invmm_eval.models.backbone import Backbone
from invmm_eval.models.condition import Condition, Context
from invmm_eval.models.schedule import Schedule, broadcast
from invmm_eval.recipe import Recipe
from invmm_eval.search.sampling import sample
from invmm_eval.testing.promises import checked, near, promise, require_leaves, require_rows, require_tensor, seeded

ROWS = 3
MANY_STEPS = 2000
"""More steps than discrete models have times."""

LARGEST_SIGNAL = 0.1
"""alpha at the noisiest time; Stable Diffusion has 0.07."""

NOISE_ERROR = 0.05
"""Largest distance of sigma from 1 there."""


def check_backbone(
    backbone: Backbone, *, captions: Sequence[str | None] | None = None, images: Tensor | None = None
) -> None:
    """Check a backbone on a few images, in seconds if the model is small.

    Random weights are enough, except for a network that predicts x_0 itself, which must be trained a little. Half
    precision is enough for a small network; a large one rounds more than is allowed here. What only a trained model can
    show is not checked: that an autoencoder returns the image, that samples look right.

    Args:
        backbone: The backbone.
        captions: Captions to make conditions for, at least one. By default none and some text, as far as the backbone
            does not refuse them by an InvMMError; give those that it needs, such as labels.
        images: Images ``(3, C, H, W)`` in [0, 1], on any device; random ones by default. Give some of the model's own
            where random ones are far from its data.

    Raises:
        BrokenPromise: Which promise is broken, and how to fix it, in one sentence.
    """
    backbone = checked(backbone, Backbone, "The backbone")
    _require_attributes(backbone)
    _require_schedule(backbone.schedule, backbone.device)
    if images is None:
        images = torch.rand((ROWS, *backbone.image_shape), generator=seeded())
    x_0 = _require_autoencoder(backbone, images.to(backbone.device))
    captions = _accepted(backbone) if captions is None else captions
    for caption in captions:
        _require_condition(backbone, caption)
    _require_estimates(backbone, x_0, captions[0])
    _require_samples(backbone, x_0, captions[0])


def _accepted(backbone: Backbone) -> list[str | None]:
    """The usual captions that the backbone takes."""
    found: list[str | None] = []
    refusal = ""
    for caption in (None, "a picture"):
        try:
            backbone.condition(caption)
        except InvMMError as error:
            refusal = str(error)
        else:
            found.append(caption)
    promise(
        bool(found),
        f"The backbone refuses to go without a caption and refuses the caption 'a picture' ({refusal.rstrip('.')}); "
        "give check_backbone captions= that it takes.",
    )
    return found


def _require_attributes(backbone: Backbone) -> None:
    promise(
        isinstance(backbone.device, torch.device),
        f"The backbone's device is a {type(backbone.device).__name__}; make it a torch.device.",
    )
    shape = backbone.image_shape
    promise(
        isinstance(shape, tuple)
        and [type(size) for size in shape] == [int] * 3
        and shape[0] in (1, 3)
        and min(shape) > 0,
        f"The backbone's image_shape is {shape!r}; make it a tuple of channels (1 or 3), height and width.",
    )
    promise(
        isinstance(backbone.recipe, Recipe),
        f"The backbone's recipe is a {type(backbone.recipe).__name__}; make it an invmm_eval.plugin.Recipe.",
    )
    promise(
        backbone.clip is None or (math.isfinite(backbone.clip) and backbone.clip > 0),
        f"The backbone's clip is {backbone.clip}; make it a number above 0, or None.",
    )


def _require_schedule(schedule: Schedule, device: torch.device) -> None:
    schedule = checked(schedule, Schedule, "The schedule")
    times, again = (schedule.draw(64, seeded()) for _ in range(2))
    promise(
        times.shape == (64,) and times.device.type == "cpu",
        f"The schedule's draw(64) returns the shape {tuple(times.shape)} on {times.device}; give (64,) on the "
        "generator's device.",
    )
    promise(
        torch.equal(times, again),
        "The schedule's draw returns other times for the same generator; draw from the generator alone.",
    )
    promise(
        not torch.equal(times, schedule.draw(64, seeded(seed=1))),
        "The schedule's draw returns the same times whatever the generator; draw from the generator.",
    )
    times = times.to(device)
    for t in (times, times[0]):
        levels = schedule(t)
        promise(
            isinstance(levels, tuple | list) and len(levels) == 2,
            f"The schedule returns a {type(levels).__name__} for times; return alpha and sigma, a pair of tensors.",
        )
        for level, name in zip(levels, ("alpha", "sigma"), strict=True):
            require_tensor(
                level, f"The schedule's {name} for times of shape {tuple(t.shape)}", shape=t.shape, device=device
            )

    few, grid = schedule.grid(4), schedule.grid(MANY_STEPS)
    promise(
        few.ndim == grid.ndim == 1 and 2 <= len(few) <= 5 and len(few) <= len(grid) <= MANY_STEPS + 1,
        f"The schedule's grid has the shape {tuple(few.shape)} for 4 steps and {tuple(grid.shape)} for {MANY_STEPS}; "
        "give one time more than steps, or all there are.",
    )
    promise(grid.device.type == device.type, f"The schedule's grid is on {grid.device}; move it to {device}.")
    promise(
        len(set(grid.tolist())) == len(grid),
        f"The schedule's grid({MANY_STEPS}) has a time twice; return each time once, and fewer times if there are "
        "no more.",
    )
    alpha, sigma = schedule(grid)
    promise(
        bool((alpha.diff() >= 0).all() and (sigma.diff() <= 0).all()),
        "Along the schedule's grid alpha falls or sigma rises; order the times from the noisiest to the clean one.",
    )
    promise(
        math.isclose(alpha[-1], 1, abs_tol=1e-3) and math.isclose(sigma[-1], 0, abs_tol=1e-3),
        f"The schedule's grid ends at alpha {alpha[-1]:.4f} and sigma {sigma[-1]:.4f}; append the clean time, with 1 "
        "and 0.",
    )
    promise(
        bool((sigma[:-1] > 0).all()), "The schedule's grid has sigma 0 before its end; only the last time may be clean."
    )
    promise(
        bool(alpha[0].abs() <= LARGEST_SIGNAL and (sigma[0] - 1).abs() <= NOISE_ERROR),
        f"The schedule's noisiest time has alpha {alpha[0]:.3f} and sigma {sigma[0]:.3f}, so that samples do not start "
        f"from standard normal noise; rescale x_t until alpha is at most {LARGEST_SIGNAL} and sigma 1.",
    )
    _, drawn = schedule(times)
    promise(
        bool((drawn > 0).all() and (drawn <= sigma[0] + 1e-6).all()),
        f"The schedule draws times with sigma from {drawn.min():.4f} to {drawn.max():.4f}; draw those above 0 and up "
        f"to the grid's {sigma[0]:.4f}.",
    )


def _require_autoencoder(backbone: Backbone, images: Tensor) -> Tensor:
    """Check encode and decode, and return x_0 of the images."""
    device = backbone.device
    x_0 = backbone.encode(images)
    require_tensor(x_0, "The output of encode", device=device)
    promise(not x_0.requires_grad, "The output of encode requires a gradient; encode under torch.no_grad.")
    require_rows(backbone.encode, "encode", images)
    back = backbone.decode(x_0)
    for decoded, what in (
        (back, "The output of decode"),
        (backbone.decode(100 * x_0), "The output of decode for a large x_0"),
    ):
        require_tensor(decoded, what, shape=tuple(images.shape), device=device)
        promise(
            bool(decoded.min() >= 0 and decoded.max() <= 1),
            f"{what} reaches from {decoded.min():.2f} to {decoded.max():.2f}; clamp images to [0, 1].",
        )
    require_rows(backbone.decode, "decode", x_0)
    promise(
        x_0.shape != images.shape or bool((back - images).abs().max() <= 1 / 255),
        f"decode(encode(images)) is {(back - images).abs().max():.3f} away from the images; make decode the inverse of "
        "encode.",
    )
    return x_0


def _require_condition(backbone: Backbone, caption: str | None) -> None:
    device = backbone.device
    condition, other = (checked(backbone.condition(caption), Condition, "The condition") for _ in range(2))
    parameters = condition.parameters()
    require_leaves(parameters, "the condition", device)
    promise(
        not any(mine is its for mine in parameters.values() for its in other.parameters().values()),
        "Two conditions share a parameter; make new ones for each image.",
    )
    contexts = {f"rsample({n})": (condition.rsample(n, seeded(device)), n) for n in (ROWS, 1)}
    contexts |= {f"null({n})": (condition.null(n), n) for n in (ROWS, 1)}
    reference, _ = contexts[f"rsample({ROWS})"]
    for what, (context, n) in contexts.items():
        promise(
            isinstance(context, Mapping) and all(isinstance(tensor, Tensor) for tensor in context.values()),
            f"The condition's {what} is a {type(context).__name__}; return a mapping of tensors.",
        )
        promise(
            all(tensor.ndim and len(tensor) == n for tensor in context.values()),
            f"The condition's {what} has the shapes {[tuple(tensor.shape) for tensor in context.values()]}; every "
            f"tensor must have {n} rows.",
        )
        kinds, expected = (
            {name: (tuple(tensor.shape[1:]), tensor.dtype, tensor.device.type) for name, tensor in each.items()}
            for each in (context, reference)
        )
        promise(
            kinds == expected,
            f"The condition's {what} holds {kinds}, but rsample({ROWS}) {expected}; all contexts of a condition have "
            "the same names, dtypes, devices and shapes of rows.",
        )
    promise(
        all(tensor.device.type == device.type for tensor in reference.values()),
        f"The condition's contexts are on other devices than the model's {device}; move them there.",
    )
    promise(
        all(torch.equal(tensor, reference[name]) for name, tensor in condition.rsample(ROWS, seeded(device)).items()),
        "The condition's rsample returns something else for the same generator; draw from the generator alone.",
    )
    promise(
        bool(parameters) or not any(tensor.requires_grad for tensor in reference.values()),
        "The condition has no parameters, but its contexts require a gradient; make them under torch.no_grad.",
    )
    promise(
        bool(reference) or backbone.recipe.guidance == (1.0,),
        f"The condition is empty, but the recipe's guidance is {backbone.recipe.guidance}; an unconditional model "
        "takes the one scale (1.0,).",
    )
    promise(
        isinstance(condition.prompt(), str | None),
        f"The condition's prompt() is a {type(condition.prompt()).__name__}; return a text, or None.",
    )


def _require_estimates(backbone: Backbone, x_0: Tensor, caption: str | None) -> None:
    device = backbone.device
    noise = torch.randn(x_0.shape, generator=seeded(seed=1)).to(device)
    condition = backbone.condition(caption)
    context = condition.rsample(ROWS, seeded(device))
    grid = backbone.schedule.grid(MANY_STEPS)

    def estimate_at(t: Tensor) -> Tensor:
        alpha_t, sigma_t = (broadcast(level, x_0) for level in backbone.schedule(t))
        estimate = backbone.predict_x0(alpha_t * x_0 + sigma_t * noise, t, context)
        require_tensor(estimate, "The output of predict_x0", shape=tuple(x_0.shape), device=device)
        return estimate

    with torch.no_grad():
        estimate_at(grid[0].expand(ROWS))
        estimate_at(backbone.schedule.draw(ROWS, seeded()).to(device))
        error = (estimate_at(grid[-2].expand(ROWS)) - x_0).square().mean().sqrt()

    middle = len(grid) // 2
    t = grid[[middle - len(grid) // 8, middle, middle + len(grid) // 8]]
    alpha_t, sigma_t = (broadcast(level, x_0) for level in backbone.schedule(t))
    x_t = alpha_t * x_0 + sigma_t * noise
    names = list(context)

    def predict(x_t: Tensor, t: Tensor, *tensors: Tensor) -> Tensor:
        return backbone.predict_x0(x_t, t, dict(zip(names, tensors, strict=True)))

    tensors = [tensor.detach() for tensor in context.values()]
    require_rows(predict, "predict_x0", x_t, t, *tensors)
    alpha, sigma = backbone.schedule(grid[-2])
    promise(
        bool(error <= 5 * sigma / alpha + 1e-3),
        f"At the least noisy time (sigma {sigma:.4f}) predict_x0 is {error:.4f} away from x_0; compare its scale, its "
        "times and the conversion of the network's output with the schedule.",
    )
    with torch.no_grad():
        before = predict(x_t, t, *tensors)
    if not getattr(backbone, "no_gradient", None):
        _require_gradients(backbone, x_t, t, condition, context)
    with torch.no_grad():
        promise(
            near(predict(x_t, t, *tensors), before),
            "predict_x0 returns something else after a gradient was computed; do not change weights or buffers.",
        )


def _require_gradients(backbone: Backbone, x_t: Tensor, t: Tensor, condition: Condition, context: Context) -> None:
    x_t = x_t.detach().requires_grad_()
    estimate = backbone.predict_x0(x_t, t, context)
    inputs = {"x_t": x_t}
    inputs |= {f"the condition's {name!r}": tensor for name, tensor in condition.parameters().items()}
    weights = [leaf for leaf in _leaves(estimate) if not any(leaf is known for known in inputs.values())]
    promise(
        not weights,
        f"{len(weights)} weights require a gradient; freeze the networks (invmm_eval.plugin.frozen).",
    )
    gradients: tuple[Tensor | None, ...] = (None,) * len(inputs)
    if estimate.requires_grad:
        gradients = torch.autograd.grad(estimate.square().sum(), list(inputs.values()), allow_unused=True)
    for name, gradient in zip(inputs, gradients, strict=True):
        promise(
            gradient is not None and bool(gradient.isfinite().all()) and bool(gradient.any()),
            f"No usable gradient reaches {name} from predict_x0; remove no_grad, detach and rounding between them.",
        )


def _leaves(tensor: Tensor) -> list[Tensor]:
    """Leaf tensors that ``tensor`` depends on."""
    found, seen, waiting = [], set(), [tensor.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if isinstance(leaf := getattr(node, "variable", None), Tensor):
            found.append(leaf)
        waiting.extend(parent for parent, _ in node.next_functions)
    return found


def _require_samples(backbone: Backbone, x_0: Tensor, caption: str | None) -> None:
    condition = backbone.condition(caption)
    images = sample(
        backbone,
        torch.randn(x_0.shape, generator=seeded(seed=2)).to(backbone.device),
        condition.rsample(ROWS, seeded(backbone.device)),
        condition.null(ROWS),
        torch.full((ROWS,), max(backbone.recipe.guidance)),
        steps=2,
        micro_batch=2,
    )
    require_tensor(images, "The output of the sampler", shape=(ROWS, *backbone.image_shape), device=backbone.device)
