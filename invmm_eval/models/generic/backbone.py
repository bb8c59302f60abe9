"""The backbone ``diffusers``: a pipeline that no other backbone serves, read where it calls its scheduler."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from invmm_eval.errors import InvMMError
from invmm_eval.models.condition import Condition, Context, Unconditional
from invmm_eval.models.generic.boundary import Boundary, Repeated
from invmm_eval.models.generic.latents import Latents
from invmm_eval.models.generic.prompts import Prompts
from invmm_eval.models.generic.proof import LEVELS, near
from invmm_eval.models.generic.proof import prove as show
from invmm_eval.models.generic.times import read_times
from invmm_eval.models.labels import Labels
from invmm_eval.models.pipelines import load_pipeline
from invmm_eval.models.schedule import RectifiedFlow
from invmm_eval.models.text import check_prompt_mode
from invmm_eval.recipe import LDM, STABLE_DIFFUSION, STABLE_DIFFUSION_3, Recipe

_GUIDED = 4.0
"""A guidance scale at which every pipeline guides."""

_UNGUIDED: tuple[Mapping[str, float], ...] = ({}, {"guidance_scale": 1.0}, {"guidance_scale": 0.0})
"""How pipelines are told not to guide. The first leaves a scale that is an input of the network as it is."""


class Diffusers:
    """Any pipeline of diffusers as a backbone. It is proved when it is loaded.

    Args:
        model: A folder, a Hub id, or a loaded pipeline.
        revision: Branch, tag or commit on the Hub.
        device: Device of the networks; a loaded pipeline stays on its own.
        dtype: Precision of networks and text encoders; x_0 and the autoencoder are always float32.
        prompt_mode: ``soft`` searches the prompt, ``caption`` uses the image's caption, and ``empty`` the empty prompt.
            For models of classes: a mixture of classes, the image's caption as the class, and no class.
        soft_tokens: Tokens of a searched prompt, at most.
        max_sequence_length: Places of a prompt; None takes the pipeline's own.
        side: Height and width of images; None takes the pipeline's own.
        checkpointing: Recompute activations for the gradient: less memory, about a third more time per step.
        prove: ``quick``, or ``full`` to compare samples too.

    Raises:
        InvMMError: The pipeline cannot be loaded, or breaks a promise.
    """

    def __init__(
        self,
        model: object,
        *,
        revision: str | None,
        device: torch.device,
        dtype: torch.dtype,
        prompt_mode: str = "soft",
        soft_tokens: int = 75,
        max_sequence_length: int | None = None,
        side: int | None = None,
        checkpointing: bool = False,
        prove: str = "quick",
    ) -> None:
        check_prompt_mode(prompt_mode)
        if prove not in LEVELS:
            raise InvMMError(f"There is no proof {prove!r}; choose one of {', '.join(LEVELS)}.")
        pipeline = load_pipeline(model, revision=revision, device=device, dtype=dtype)
        name = type(pipeline).__name__
        try:
            self._boundary = Boundary(pipeline, side, max_sequence_length)
            self._read(name, prompt_mode, soft_tokens, checkpointing)
            proved = show(self, name, prove, self._caption, self._latents.reconstruct, self._sampled)
        except InvMMError:
            raise
        except Exception as error:
            text = str(error).strip().partition("\n")[0]
            raise InvMMError(
                f"The backbone diffusers cannot serve this {name}: its call ends in {type(error).__name__} ({text})."
            ) from error
        self.settings: Mapping[str, str | int | float | None] = {
            "name": "diffusers",
            "pipeline": name,
            "dtype": str(self._boundary.network.dtype),
            "prompt_mode": None if self._conditions is None else prompt_mode,
            "side": side,
            "soft_tokens": soft_tokens if isinstance(self._conditions, Prompts) and prompt_mode == "soft" else None,
            "max_sequence_length": max_sequence_length,
            "proved": proved,
        }

    def _read(self, name: str, mode: str, tokens: int, checkpointing: bool) -> None:
        if checkpointing:
            self._boundary.network.enable_gradient_checkpointing()
        self.device: torch.device = self._boundary.device
        guided, shape, stand_in = self._without_guidance(name)
        self._conditions = self._find_conditions(mode, tokens, guided)
        if checkpointing and isinstance(self._conditions, Labels):
            # Blocks that embed the class would be computed again without the mixture.
            raise InvMMError("Models of classes cannot recompute activations; leave out checkpointing.")
        first = self._first_call
        boundary = self._boundary
        times = read_times(boundary.pipe.scheduler, self.device, lambda steps: boundary.scheduler(steps, **first(1)))
        self._times, self.schedule, self.clip = times, times.schedule, times.clip
        self._latents = Latents(self._boundary, shape, {**first(1, torch.float32), "network": stand_in})
        self.image_shape: tuple[int, int, int] = self._latents.image_shape
        self._choose_times(shape)
        self.recipe: Recipe = self._recipe()

    @property
    def _caption(self) -> str:
        """A caption that the model can take."""
        return "0" if isinstance(self._conditions, Labels) else "a"

    def _without_guidance(self, name: str) -> tuple[Mapping[str, Any], tuple[int, ...], Repeated]:
        """Make the pipeline call its network once for each image.

        Returns:
            The options that make it guide, the shape of x_0, and a stand-in for the network.
        """
        boundary = self._boundary
        boundary.options["true_cfg_scale"] = 1.0
        # DiT's pipeline guides by the class 1000, even if there are fewer, so it is never called with guidance.
        for options in _UNGUIDED[1:] if "class_labels" in boundary.takes else _UNGUIDED:
            try:
                calls, shape, stand_in = boundary.survey(**options)
            except ValueError:
                # Ideogram 4 takes no step without a scale.
                if options is _UNGUIDED[-1]:
                    raise
                continue
            if calls == [1]:
                boundary.options.update(options)
                return {"true_cfg_scale": _GUIDED, **dict.fromkeys(options, _GUIDED)}, shape, stand_in
        raise InvMMError(f"The backbone diffusers cannot serve this {name}: it guides at every scale.")

    def _find_conditions(self, mode: str, tokens: int, guided: Mapping[str, Any]) -> Prompts | Labels | None:
        boundary = self._boundary
        if "class_labels" in boundary.takes:
            config = boundary.network.config
            classes = config.get("num_embeds_ada_norm") or config.get("num_class_embeds")
            return Labels(boundary.network, classes, getattr(boundary.pipe, "labels", {}), mode)
        return Prompts(boundary, mode, tokens, guided) if hasattr(boundary.pipe, "encode_prompt") else None

    def _first_call(self, rows: int, dtype: torch.dtype | None = None) -> dict[str, Any]:
        """What a call takes besides latents, for any prompt, in a precision; None keeps its own."""
        return self._conditions.plain(rows, dtype) if isinstance(self._conditions, Prompts) else {}

    def _choose_times(self, shape: tuple[int, ...]) -> None:
        """Give the pipeline a time for each row, or its network where the pipeline reads a number."""
        x_t = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)).to(self.device)
        t = self._times.told(self.schedule.grid(8)[[2, 5]])
        try:
            with torch.no_grad():
                together = self._boundary.output(x_t, t, **self._first_call(2))
                alone = [self._boundary.output(x_t[[row]], t[[row]], **self._first_call(1)) for row in (0, 1)]
        except (RuntimeError, ValueError, TypeError):
            return self._boundary.learn_times(x_t[:1], **self._first_call(1))
        if not near(together, torch.cat(alone)):
            self._boundary.learn_times(x_t[:1], **self._first_call(1))
        return None

    def _recipe(self) -> Recipe:
        """The published recipe of the nearest family; without an unconditional prompt there is no guidance."""
        if self._conditions is None:
            return replace(LDM, name="diffusers")
        nearest = STABLE_DIFFUSION_3 if isinstance(self.schedule, RectifiedFlow) else STABLE_DIFFUSION
        recipe = replace(nearest, name="diffusers")
        return recipe if self._conditions.guidance else replace(recipe, guidance=(1.0,))

    def encode(self, images: Tensor) -> Tensor:
        """What the pipeline would denoise to get these images."""
        return self._latents.encode(images)

    @torch.no_grad()
    def decode(self, x_0: Tensor) -> Tensor:
        """Images in [0, 1], as the pipeline decodes them."""
        return self._latents.decode(x_0)

    def condition(self, caption: str | None = None) -> Condition:
        """The prompt or the class, according to the prompt mode.

        Raises:
            InvMMError: The prompt mode is ``caption`` and there is no caption, or no such class.
        """
        return Unconditional() if self._conditions is None else self._conditions.condition(caption)

    def predict_x0(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        """The estimate from what the pipeline hands its scheduler."""
        scaled, told = self._times.scaled(x_t, t), self._times.told(t)
        found, order = [], []
        for index, given in self._calls(context):
            rows = torch.arange(len(x_t), device=x_t.device) if index is None else index
            found.append(self._boundary.output(scaled[rows], told[rows], **given).float())
            order.append(rows)
        output = found[0] if len(found) == 1 else torch.cat(found)[torch.cat(order).argsort()]
        return self._times.x_0(output, x_t, t)

    def _calls(self, context: Context) -> Iterable[tuple[Tensor | None, dict[str, Any]]]:
        """Arguments of the calls that serve the rows of a context, and which rows each serves; None for all."""
        return [(None, {})] if self._conditions is None else self._conditions.calls(context)

    def _sampled(self, noise: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """Images of two deterministic steps for one row: by the pipeline's own loop, and by :meth:`predict_x0`."""
        grid = self.schedule.grid(2)
        done: list[int] = []

        def forward(x_t: Tensor, x_0: Tensor, step: int) -> Tensor:
            (alpha_t, alpha_s), (sigma_t, sigma_s) = (level[step : step + 2] for level in self.schedule(grid))
            following: Tensor = alpha_s * x_0 + sigma_s * (x_t - alpha_t * x_0) / sigma_t
            return following

        def take_step(output: Tensor, _: Tensor, x_t: Tensor) -> Tensor:
            step, x_t = len(done), x_t.float()
            done.append(step)
            return forward(x_t, self._times.x_0(output.narrow(1, 0, x_t.shape[1]).float(), x_t, grid[[step]]), step)

        def scale(x_t: Tensor, _: Tensor) -> Tensor:
            return self._times.scaled(x_t, grid[[len(done)]])

        for _, given in self._calls(context):
            theirs = self._boundary.images(noise, self._times.told(grid[:-1]), take_step, scale, **given)
        x_t = noise
        for step in range(len(grid) - 1):
            x_t = forward(x_t, self.predict_x0(x_t, grid[[step]], context), step)
        return theirs, self.decode(x_t)
