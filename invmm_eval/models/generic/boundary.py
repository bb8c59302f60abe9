"""Calls a diffusers pipeline for one step, with a probe in its scheduler's place.

The pipeline's own ``__call__`` runs, without the ``no_grad`` around it. Its ``encode_prompt`` and ``prepare_latents``
are answered with what is given, so that gradients reach both; the call ends where the scheduler's ``step`` is called.
"""

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from invmm_eval.errors import InvMMError
from invmm_eval.models.generic.offload import offload
from invmm_eval.models.generic.probe import Done, Probe, Repeated
from invmm_eval.models.generic.stages import as_one
from invmm_eval.models.pipelines import frozen

NETWORKS = ("transformer", "unet")
AUTOENCODERS = ("vae", "movq", "vqvae")
_PREPARING = ("prepare_latents", "prepare_intermediate_images")
_TIMES = ("timestep", "timesteps", "t")
_MIDDLE = 0.5
_SECOND = "intermediate_timesteps"
"""The time of SanaSprint's second step of two, which it refuses for other numbers of steps."""
_LEFT_OUT = ("safety_checker", "watermark", "watermarker")


class Boundary:
    """A view of a pipeline that shares its weights and leaves it unchanged.

    Args:
        pipeline: The pipeline.
        sides: Height and width of images in pixels; None takes the pipeline's own.
        offloaded: How the weights are moved from CPU memory and to which device, see
            :func:`invmm_eval.models.generic.offload.offload`; None leaves them where they are.

    Attributes:
        pipe: The view: its modules are frozen, its autoencoder computes in float32, and none in less precision than the
            denoiser, as encoders do beside one in training.
        network: The denoiser.
        modules: All its networks.
        device: Where it computes.
        takes: Names of the parameters of the pipeline's call.
        options: Further arguments of the call.

    Raises:
        InvMMError: The pipeline is not one denoiser that is called by a method of its own.
    """

    def __init__(
        self,
        pipeline: Any,
        sides: tuple[int, int] | None = None,
        offloaded: tuple[str, torch.device] | None = None,
    ) -> None:
        name = type(pipeline).__name__
        pipeline = as_one(pipeline)
        self.pipe = copy.copy(pipeline)
        modules: dict[str, Any] = {
            part: frozen(module) for part, module in pipeline.components.items() if isinstance(module, nn.Module)
        }
        for part in _LEFT_OUT:
            modules.pop(part, None)
        vars(self.pipe).update({part: None for part in _LEFT_OUT if part in vars(self.pipe)}, **modules)
        self.pipe.set_progress_bar_config(disable=True)
        networks = [part for part in modules if part.startswith((*NETWORKS, "prior", "decoder"))]
        if len(networks) != 1 or networks[0] not in NETWORKS or not hasattr(type(pipeline).__call__, "__wrapped__"):
            raise InvMMError(
                f"{name} has {'no' if not networks else 'the'} denoising networks {', '.join(networks)}; the backbone "
                "diffusers takes pipelines with one, transformer or unet."
            )
        self.modules = tuple(modules.values())
        self._network_name = networks[0]
        self.network: Any = modules[self._network_name]
        for module in modules.values():
            precision, finer = getattr(module, "dtype", None), self.network.dtype
            if precision not in (None, finer) and torch.promote_types(precision, finer) == finer:
                module.to(finer)
        self.autoencoder: Any = next((modules[part] for part in AUTOENCODERS if part in modules), None)
        if self.autoencoder is not None:
            decode = self.autoencoder.float().decode
            vars(self.autoencoder)["decode"] = lambda z, *args, **options: decode(z.float(), *args, **options)
        how, where = offloaded or (None, self.network.device)
        self.device: torch.device = where
        # The pipeline's own property looks for hooks in all modules, at each call.
        kind = type(self.pipe)
        self.pipe.__class__ = type(kind.__name__, (kind,), {"_execution_device": where})
        last = [self.network, *([] if self.autoencoder is None else [self.autoencoder])]
        order = [*(module for module in modules.values() if module not in last), *last]
        self._gradient = offload(order, how, where)
        self._call = inspect.unwrap(type(pipeline).__call__)
        self.takes = tuple(inspect.signature(self._call).parameters)
        self.options: dict[str, Any] = {}
        if sides:
            self.options = {"height": sides[0], "width": sides[1], "max_area": sides[0] * sides[1]}
        self.options |= {"output_type": "np", "num_inference_steps": 1, "num_frames": 1}
        self.options |= {"use_resolution_binning": False, "return_dict": False, _SECOND: None}
        # Texts reach the encoders as they are: cleaning them depends on other libraries.
        self.options |= {"guidance_schedule": None, "clean_caption": False}
        self._preparing = next((method for method in _PREPARING if hasattr(type(pipeline), method)), None)
        self._prepared: dict[tuple[int, bool], Any] = {}
        self.slope: tuple[float, float] | None = None

    def call(
        self,
        rows: int,
        probe: Any,
        *,
        x_t: Tensor | None = None,
        network: Any = None,
        encode: Callable[..., Any] | Sequence[Any] | None = None,
        **given: Any,
    ) -> Any:
        """Call the pipeline for ``rows`` images.

        Args:
            rows: Number of images.
            probe: Its scheduler.
            x_t: The latents to start from; None leaves them to the pipeline.
            network: Takes the place of the denoiser.
            encode: What each call of ``encode_prompt`` returns, or what answers these calls; None leaves them to the
                pipeline.
            **given: Arguments of the call; those that it does not take are left out.

        Returns:
            What ended the call: the value of :class:`Done`, or what the pipeline returned.

        Raises:
            InvMMError: The pipeline asks its scheduler for what it does not have.
        """
        images = {"prompt": [""] * rows, "class_labels": [0] * rows, "batch_size": rows}
        arguments = {**images, **self.options, **given}
        pipe = copy.copy(self.pipe)
        vars(pipe)["scheduler"] = probe
        if network is not None:
            vars(pipe)[self._network_name] = network
        if encode is not None:
            answers = iter(() if callable(encode) else encode)
            vars(pipe)["encode_prompt"] = encode if callable(encode) else lambda *_, **__: next(answers)
        if x_t is not None and self._preparing:
            vars(pipe)[self._preparing] = lambda *args, **kwargs: self._start(x_t, network is None, args, kwargs)
        try:
            return self._call(pipe, **{name: value for name, value in arguments.items() if name in self.takes})
        except Done as done:
            return done.value
        except AttributeError as error:
            if not any(error.obj is asked for asked in (probe, self.pipe.scheduler, probe.config)):
                raise
            raise InvMMError(
                f"A {type(self.pipe).__name__} does not work with a {type(self.pipe.scheduler).__name__}, which has no "
                f"{error.name}; give the pipeline the scheduler that the model was trained with."
            ) from error

    def _start(self, x_t: Tensor, own: bool, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """What the pipeline's own method prepares, with ``x_t`` in place of the noise.

        It is prepared once for a number of rows, and for the ``own`` network or one that takes its place.
        """
        key = len(x_t), own
        if key not in self._prepared:
            with torch.random.fork_rng(), torch.no_grad():
                self._prepared[key] = getattr(self.pipe, str(self._preparing))(*args, **kwargs)
        made = self._prepared[key]
        if isinstance(made, Tensor):
            return x_t.to(made.dtype)
        return type(made)([x_t.to(made[0].dtype), *made[1:]])

    def output(self, x_t: Tensor, t: Tensor, **given: Any) -> Tensor:
        """What the scheduler is handed for the latents ``x_t`` at times ``t`` ``(n,)`` of the scheduler."""

        def step(model_output: Tensor, _: Tensor, sample: Tensor) -> Tensor:
            raise Done(model_output.narrow(1, 0, sample.shape[1]))

        times = t[None] if self.slope is None else torch.full((1,), _MIDDLE * self.train_times, device=t.device)
        with self._gradient(), self._given_times(t) if self.slope else nullcontext():
            found: Tensor = self.call(len(x_t), self._probe(times, step, x_t), x_t=x_t, **given)
        return found

    def images(
        self,
        x_t: Tensor,
        times: Tensor,
        step: Callable[[Tensor, Tensor, Tensor], Tensor],
        scale: Callable[[Tensor, Tensor], Tensor],
        **given: Any,
    ) -> Tensor:
        """Images ``(n, C, H, W)`` that the pipeline's own loop makes from ``x_t``, with steps of ours."""
        first = [] if self._preparing else [x_t.to(self.network.dtype)]

        def scaled(sample: Tensor, t: Tensor) -> Tensor:
            start = first[0] if first else sample
            return scale(start, t).to(start.dtype)

        def taken(output: Tensor, t: Tensor, sample: Tensor) -> Tensor:
            return step(output, t, first.pop() if first else sample).to(sample.dtype)

        given |= {"num_inference_steps": len(times)}
        made = self.call(len(x_t), Probe(self.pipe.scheduler, times, taken, scaled), x_t=x_t, **given)[0]
        images = torch.from_numpy(made).float().to(x_t.device)
        return (images if images.ndim == 4 else images[:, 0]).movedim(-1, 1)

    def _probe(self, times: Tensor, step: Callable[[Tensor, Tensor, Tensor], Tensor], x_t: Tensor | None) -> Probe:
        """A probe that also gives the latents to a pipeline that has no method to prepare them."""
        if self._preparing or x_t is None:
            return Probe(self.pipe.scheduler, times, step)
        return Probe(self.pipe.scheduler, times, step, lambda _, __: x_t.to(self.network.dtype))

    @property
    def train_times(self) -> int:
        """The number of the scheduler's training times."""
        return int(self.pipe.scheduler.config.num_train_timesteps)

    def _given_times(self, t: Tensor) -> RemovableHandle:
        """A context in which the denoiser gets each row's own time, where the pipeline gives all rows the same."""
        assert self.slope is not None
        start, slope = self.slope

        def give(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            times = (start + slope * t).to(_time(args, kwargs).dtype)
            names = [name for name in _TIMES if name in kwargs]
            return (args, {**kwargs, names[0]: times}) if names else ((args[0], times, *args[2:]), kwargs)

        handle: RemovableHandle = self.network.register_forward_pre_hook(give, with_kwargs=True)
        return handle

    def learn_times(self, x_t: Tensor, **given: Any) -> None:
        """Learn how the pipeline gives its denoiser the time, for pipelines that read it as a number.

        The denoiser's argument is affine in the scheduler's time; two calls with one row show how.

        Raises:
            InvMMError: The denoiser gets no time.
        """

        def look(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
            raise Done(float(_time(args, kwargs).flatten()[0]))

        low, high = 0.25 * self.train_times, 0.75 * self.train_times
        with torch.no_grad(), self.network.register_forward_pre_hook(look, with_kwargs=True):
            first, second = (
                self.call(1, self._probe(torch.tensor([number], device=x_t.device), _same, x_t), x_t=x_t, **given)
                for number in (low, high)
            )
        slope = (second - first) / (high - low)
        self.slope = (first - slope * low, slope)

    def survey(self, **given: Any) -> tuple[list[int], tuple[int, ...], Repeated]:
        """What the pipeline does for one image in one step.

        Returns:
            The rows of each call of the denoiser, the shape of what is denoised, and a stand-in for the denoiser.
        """
        seen: list[int] = []
        outputs: list[Any] = []

        def look(_: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
            seen.append(len(args[0] if args else next(iter(kwargs.values()))))
            outputs.append(output)

        def step(_: Tensor, __: Tensor, sample: Tensor) -> Tensor:
            raise Done(tuple(sample.shape[1:]))

        times = torch.full((1,), _MIDDLE * self.train_times, device=self.device)
        watched = self.network.register_forward_hook(look, with_kwargs=True)
        with watched, torch.no_grad(), torch.random.fork_rng():
            shape = self.call(1, self._probe(times, step, None), **given)
        return seen, shape, Repeated(self.network, outputs[0])

    def encodings(self, rows: int, calls: int | None = None, **given: Any) -> list[Any]:
        """What ``encode_prompt`` returns each time that the pipeline calls it, differentiable.

        Args:
            rows: Number of prompts.
            calls: How many calls there are, where that is known.
            **given: Arguments of the pipeline's call.
        """
        found: list[Any] = []

        def encode(*args: Any, **kwargs: Any) -> Any:
            found.append(self.pipe.encode_prompt(*args, **kwargs))
            if len(found) == calls:
                raise Done
            return found[-1]

        with self._gradient(), torch.random.fork_rng(), self._stopped():
            self.call(rows, self._probe(torch.ones(1, device=self.device), _same, None), encode=encode, **given)
        return found

    def scheduler(self, steps: int, **given: Any) -> Any:
        """A copy of the pipeline's scheduler, as the pipeline sets it for a number of steps.

        Its ``mu`` is its shift, and ``scaled`` is whether the pipeline let it scale what the network gets.
        """
        own = copy.deepcopy(self.pipe.scheduler)
        set_timesteps, scale = own.set_timesteps, getattr(own, "scale_model_input", _same)
        own.mu, own.scaled = None, False

        @wraps(set_timesteps)
        def read(*args: Any, mu: float | None = None, **kwargs: Any) -> None:
            own.mu = mu
            set_timesteps(*args, **kwargs, **({} if mu is None else {"mu": mu}))

        def note(*args: Any, **kwargs: Any) -> Any:
            own.scaled = True
            return scale(*args, **kwargs)

        own.set_timesteps = read
        if hasattr(own, "scale_model_input"):
            own.scale_model_input = note
        if steps == 2 and _SECOND in self.takes:
            given[_SECOND] = inspect.signature(self._call).parameters[_SECOND].default
        with torch.no_grad(), torch.random.fork_rng(), self._stopped():
            self.call(1, own, **{**given, "num_inference_steps": steps})
        del own.set_timesteps
        vars(own).pop("scale_model_input", None)
        return own

    def _stopped(self) -> RemovableHandle:
        """A context in which a call ends where the denoiser is called."""

        def stop(_: nn.Module, __: Any) -> None:
            raise Done

        handle: RemovableHandle = self.network.register_forward_pre_hook(stop)
        return handle


def _same(_: Tensor, __: Tensor, sample: Tensor) -> Tensor:
    return sample


def _time(args: Any, kwargs: Mapping[str, Any]) -> Tensor:
    """The time that a denoiser gets, by name or after what it denoises."""
    named: list[Tensor] = [kwargs[name] for name in _TIMES if name in kwargs]
    if not named and len(args) < 2:
        raise InvMMError("The pipeline passes no time to its denoising network, so its rows cannot have their own.")
    return named[0] if named else args[1]
