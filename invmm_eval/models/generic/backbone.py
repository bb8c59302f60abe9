"""The backbone ``diffusers``: a pipeline that no other backbone serves, read where it calls its scheduler."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from accelerate.utils.memory import should_reduce_batch_size
from diffusers import AutoencoderTiny
from torch import Tensor

from invmm_eval.errors import InvMMError
from invmm_eval.models.condition import Condition, Context, Unconditional
from invmm_eval.models.configs import check_pixels
from invmm_eval.models.few_steps import FewTimes, OwnSampler, by_itself, few_steps_of
from invmm_eval.models.generic.boundary import Boundary
from invmm_eval.models.generic.latents import Latents
from invmm_eval.models.generic.offload import home
from invmm_eval.models.generic.probe import Repeated
from invmm_eval.models.generic.prompts import Prompts
from invmm_eval.models.generic.proof import LEVELS, near
from invmm_eval.models.generic.proof import prove as show
from invmm_eval.models.generic.times import check_kind, read_times
from invmm_eval.models.identity import model_identity
from invmm_eval.models.labels import Labels
from invmm_eval.models.pipelines import first_line, frozen, load_pipeline
from invmm_eval.models.schedule import RectifiedFlow
from invmm_eval.models.text import check_prompt_mode
from invmm_eval.recipe import LDM, STABLE_DIFFUSION, STABLE_DIFFUSION_3, Recipe

_TOKENS = 75

_NO_MEMORY = (
    "Memory ran out while this {} was proved, which takes a gradient for one image and two without; choose a lower "
    "precision, offload, the backbone option checkpointing=true, or a smaller image_size ({})."
)

_GUIDED = 4.0
"""A guidance scale at which every pipeline guides."""

_UNGUIDED: tuple[Mapping[str, float], ...] = ({}, {"guidance_scale": 1.0}, {"guidance_scale": 0.0})
"""How guidance of pipelines is switched off. The first leaves a scale that is an input of the network as it is."""


@dataclass(frozen=True)
class Family:
    """What is known of a family of models, and cannot be read from its pipelines.

    Attributes:
        name: Its name as a backbone.
        recipe: Its published recipe; None takes the one of the nearest family.
        pipelines: Class names of its pipelines; empty for any.
        searched: Names of the text encoders whose tokens are searched; the others read the caption.
        defaults: Returns defaults for a pipeline: of the options ``soft_tokens``, ``max_sequence_length`` and
            ``guidance_scale``, ``few_steps``, and of ``sides``, the height and width of images.
        parts: Parts of a stored pipeline that are replaced when it is loaded; None leaves one out.
    """

    name: str
    recipe: Recipe | None = None
    pipelines: tuple[str, ...] = ()
    searched: tuple[str, ...] = ("text_encoder",)
    defaults: Callable[[Any], Mapping[str, Any]] = lambda pipeline: {}  # noqa: ARG005
    parts: Mapping[str, Any] = field(default_factory=dict)


class Diffusers:
    """Any pipeline of diffusers as a backbone. It is proved when it is loaded.

    Args:
        model: A folder, a Hub id, or a loaded pipeline.
        revision: Branch, tag or commit on the Hub.
        device: Device of the networks; a loaded pipeline stays on its own.
        dtype: Precision of networks and text encoders; x_0 and the autoencoder are always float32.
        prompt_mode: ``soft`` searches the prompt, ``caption`` uses the image's caption, and ``empty`` the empty prompt.
            For models of classes: a mixture of classes, the image's caption as the class, and no class.
        soft_tokens: Tokens of a searched prompt, at most; None takes 75, PixArt's all.
        image_size: Pixels a side of the images; None takes the pipeline's own.
        max_sequence_length: Places of a prompt; None takes the pipeline's own.
        guidance_scale: Guidance that a distilled network gets; None takes the pipeline's own.
        tiny_autoencoder: Folder or Hub id of an AutoencoderTiny that decodes samples at checks, which is faster; its
            approximate decoding is then compared with the image.
        checkpointing: Recompute activations for the gradient: less memory, about a third more time per step.
        few_steps: Steps in which a model that is made for few samples, by its own scheduler; 0 takes it for one of
            many, and None what its pipeline says.
        offload: Keep weights in CPU memory: ``model`` moves encoders, network and autoencoder to the device in turns,
            ``group`` each layer when it computes, which takes the least memory of the device and the most time.
        prove: ``quick``, or ``full`` to compare samples too.

    Raises:
        InvMMError: The pipeline cannot be loaded, or breaks a promise.
    """

    family = Family("diffusers")

    def __init__(
        self,
        model: object,
        *,
        revision: str | None,
        device: torch.device,
        dtype: torch.dtype,
        prompt_mode: str = "soft",
        soft_tokens: int | None = None,
        image_size: int | None = None,
        max_sequence_length: int | None = None,
        guidance_scale: float | None = None,
        tiny_autoencoder: str | None = None,
        checkpointing: bool = False,
        few_steps: int | None = None,
        offload: str | None = None,
        prove: str = "quick",
    ) -> None:
        check_prompt_mode(prompt_mode)
        place = home(offload, device)
        if prove not in LEVELS:
            raise InvMMError(f"There is no proof {prove!r}; choose one of {', '.join(LEVELS)}.")
        if image_size is not None and (type(image_size) is not int or image_size < 1):
            raise InvMMError(f"The image_size is {image_size!r}; it must be a number of pixels.")
        small = AutoencoderTiny.from_pretrained(tiny_autoencoder, use_safetensors=True) if tiny_autoencoder else None
        pipeline = load_pipeline(model, revision=revision, device=place, dtype=dtype, **self.family.parts)
        self._name = type(pipeline).__name__
        if self.family.pipelines and not {kind.__name__ for kind in type(pipeline).mro()} & {*self.family.pipelines}:
            raise InvMMError(
                f"The backbone {self.family.name} takes {' and '.join(self.family.pipelines)}, not {self._name}."
            )
        chosen = {"max_sequence_length": max_sequence_length, "guidance_scale": guidance_scale}
        given = {name: value for name, value in chosen.items() if value is not None}
        defaults = {**self.family.defaults(pipeline)}
        sides = defaults.pop("sides", None)
        tokens: int = defaults.pop("soft_tokens", _TOKENS)
        usual: int | None = defaults.pop("few_steps", None)
        call = {**defaults, **given}
        if image_size:
            sides = image_size, image_size
            check_pixels(*sides)
        try:
            self._boundary = Boundary(pipeline, sides, (offload, device) if offload else None)
            few = few_steps_of(self._boundary.pipe, few_steps, usual)
            self._read(prompt_mode, soft_tokens or tokens, checkpointing, call)
            latents, modules = self._latents, self._boundary.modules
            proved, lacking = show(self, self._name, prove, self._caption, latents.reconstruct, self._sampled, modules)
            if few:
                self._sample_in(few)
        except InvMMError:
            raise
        except Exception as error:
            if should_reduce_batch_size(error):
                raise InvMMError(_NO_MEMORY.format(self._name, first_line(error))) from error
            raise InvMMError(
                f"The backbone {self.family.name} cannot serve this {self._name}"
                f"{f' with image_size={image_size}' if image_size else ''}: its call ends in {type(error).__name__} "
                f"({first_line(error)})."
            ) from error
        self.settings: Mapping[str, str | int | float | None] = {
            "name": self.family.name,
            **({} if self.family.pipelines else {"pipeline": self._name}),
            "dtype": str(self._boundary.network.dtype),
            "prompt_mode": None if self._conditions is None else prompt_mode,
            **call,
            **({"few_steps": few} if few else {}),
            "soft_tokens": None if soft_tokens == tokens else soft_tokens,
            "tiny_autoencoder": tiny_autoencoder,
            **({"tiny_autoencoder_weights": model_identity(tiny_autoencoder)} if tiny_autoencoder else {}),
            "proved": proved,
        }
        self.no_gradient: str | None = lacking
        if small is not None:
            self._latents.small = frozen(small).float().to(self.device)

    def _read(self, mode: str, tokens: int, checkpointing: bool, call: Mapping[str, Any]) -> None:
        self._boundary.options |= {name: value for name, value in call.items() if value is not None}
        if checkpointing:
            self._boundary.network.enable_gradient_checkpointing()
        self.device: torch.device = self._boundary.device
        guided, shape, stand_in = self._without_guidance(call.get("guidance_scale") is not None)
        self._conditions = self._find_conditions(mode, tokens, guided)
        if checkpointing and isinstance(self._conditions, Labels):
            # Blocks that embed the class would be computed again without the mixture.
            raise InvMMError("Models of classes cannot recompute activations; leave out checkpointing.")
        first = self._first_call
        boundary = self._boundary

        def ready(steps: int) -> Any:
            return boundary.scheduler(steps, **first(1))

        times = read_times(boundary.pipe.scheduler, self.device, ready)
        check_kind(type(boundary.pipe), boundary.pipe.scheduler, times.schedule)
        self._times, self.schedule, self.clip = times, times.schedule, times.clip
        self.own_path = OwnSampler(boundary.pipe, ready, times.own, times.schedule, times.x_0, self.device)
        self._latents = Latents(self._boundary, shape, {**first(1, torch.float32), "network": stand_in})
        self.image_shape: tuple[int, int, int] = self._latents.image_shape
        self._choose_times(shape)
        self.recipe: Recipe = self.family.recipe or self._recipe()

    @property
    def _caption(self) -> str:
        """A caption that the model can take."""
        return "0" if isinstance(self._conditions, Labels) else "a"

    def _without_guidance(self, distilled: bool) -> tuple[Mapping[str, Any], tuple[int, ...], Repeated]:
        """Make the pipeline call its network once for each image.

        Args:
            distilled: Whether ``guidance_scale`` is for the network.

        Returns:
            The options that make it guide, the shape of x_0, and a stand-in for the network.
        """
        boundary = self._boundary
        boundary.options["true_cfg_scale"] = 1.0
        if distilled and boundary.survey(guidance_scale=_GUIDED)[0] != [1]:
            raise InvMMError(f"The guidance_scale of this {self._name} is that of samples; set guidance of the recipe.")
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
        raise InvMMError(f"The backbone {self.family.name} cannot serve this {self._name}: it guides at every scale.")

    def _find_conditions(self, mode: str, tokens: int, guided: Mapping[str, Any]) -> Prompts | Labels | None:
        boundary = self._boundary
        config = boundary.network.config
        classes = config.get("num_embeds_ada_norm") or config.get("num_class_embeds")
        if "class_labels" in boundary.takes and classes:
            return Labels(boundary.network, self.device, classes, getattr(boundary.pipe, "labels", {}), mode)
        if not hasattr(boundary.pipe, "encode_prompt"):
            return None
        return Prompts(boundary, mode, tokens, self.family.searched, guided)

    def _first_call(self, rows: int, dtype: torch.dtype | None = None) -> dict[str, Any]:
        """What a call takes besides latents, for any prompt, in a precision; None keeps its own."""
        return self._conditions.plain(rows, dtype) if isinstance(self._conditions, Prompts) else {}

    def _choose_times(self, shape: tuple[int, ...]) -> None:
        """Give the pipeline a time for each row, or its network where the pipeline reads a number."""
        x_t = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)).to(self.device)
        t = self._times.scheduler_time(self.schedule.grid(8)[[2, 5]])
        try:
            with torch.no_grad():
                together = self._boundary.output(x_t, t, **self._first_call(2))
                alone = [self._boundary.output(x_t[[row]], t[[row]], **self._first_call(1)) for row in (0, 1)]
        except (RuntimeError, ValueError, TypeError) as error:
            if should_reduce_batch_size(error):
                raise
            reads_rows = False
        else:
            reads_rows = near(together, torch.cat(alone))
        if not reads_rows:
            self._boundary.learn_times(x_t[:1], **self._first_call(1))

    def _recipe(self) -> Recipe:
        """The published recipe of the nearest family; without an unconditional prompt there is no guidance."""
        if self._conditions is None:
            return replace(LDM, name="diffusers")
        nearest = STABLE_DIFFUSION_3 if isinstance(self.schedule, RectifiedFlow) else STABLE_DIFFUSION
        recipe = replace(nearest, name="diffusers")
        return recipe if self._conditions.guidance else replace(recipe, guidance=(1.0,))

    def _sample_in(self, few: int) -> None:
        """Have samples made by the model's own scheduler, and ask the network at no other times than it does."""
        has_null = self._conditions is not None and self._conditions.guidance
        self.recipe = by_itself(self.recipe, few, (0.0, 1.0) if has_null else (1.0,))
        times = [step.t for step in self.own_path(few).steps]
        self.schedule = FewTimes(self.schedule, times)

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
        scaled, times = self._latents.denoised(self._times.scaled(x_t, t)), self._times.scheduler_time(t)
        found, order = [], []
        for index, given in self._calls(context):
            rows = torch.arange(len(x_t), device=x_t.device) if index is None else index
            found.append(self._boundary.output(scaled[rows], times[rows], **given).float())
            order.append(rows)
        output = found[0] if len(found) == 1 else torch.cat(found)[torch.cat(order).argsort()]
        return self._times.x_0(self._latents.ordered(output), x_t, t)

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
            start = self._latents.denoised(noise)
            theirs = self._boundary.images(start, self._times.scheduler_time(grid[:-1]), take_step, scale, **given)
        x_t = noise
        for step in range(len(grid) - 1):
            x_t = forward(x_t, self.predict_x0(x_t, grid[[step]], context), step)
        return theirs, self.decode(x_t)
