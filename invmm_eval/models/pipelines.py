"""Load diffusers pipelines safely, and read their schedulers."""

import copy
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler
from huggingface_hub import hf_hub_download
from torch import Tensor, nn

from invmm_eval.errors import InvMMError
from invmm_eval.models.schedule import X0_FROM, Conversion, RectifiedFlow, VariancePreserving

M = TypeVar("M", bound=nn.Module)


def frozen(module: M) -> M:
    """An evaluation-mode view of ``module`` whose parameters take no gradient.

    The weights are shared, not copied, and the module itself is not changed: a model may be audited between two steps
    of its training.
    """
    shared: dict[int, Any] = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in module.parameters()}
    shared |= {id(b): b.detach() for b in module.buffers()}
    return copy.deepcopy(module, shared).eval()


@dataclass(frozen=True)
class Discrete:
    """The properties of a model that a diffusers scheduler with discrete times defines.

    Attributes:
        schedule: Its times and noise levels.
        x0_from: Converts the network's output to x_0.
        clip: See :attr:`Backbone.clip`.
    """

    schedule: VariancePreserving
    x0_from: Conversion
    clip: float | None


def discrete(scheduler: Any, device: torch.device) -> Discrete:
    """Read a scheduler such as DDPM's, DDIM's or PNDM's.

    Raises:
        InvMMError: Its prediction type is unknown, it uses dynamic thresholding, its times are not discrete, or its
            noise levels or clip range make no sense.
    """
    config = scheduler.config
    if not hasattr(scheduler, "alphas_cumprod") or config.get("use_flow_sigmas"):
        raise InvMMError(
            f"The model's {type(scheduler).__name__} has no table of discrete noise levels; give the pipeline the "
            "scheduler that the model was trained with."
        )
    if config.prediction_type not in X0_FROM:
        raise InvMMError(f"The model's scheduler predicts {config.prediction_type!r}; known are {', '.join(X0_FROM)}.")
    if config.get("thresholding"):
        raise InvMMError("The model's scheduler uses dynamic thresholding, which is not supported.")
    clip = config.clip_sample_range if config.get("clip_sample") else None
    if clip is not None and not 0 < clip < math.inf:
        raise InvMMError(f"The model's scheduler clips samples to {clip}; its clip_sample_range must be above 0.")
    schedule = VariancePreserving(scheduler.alphas_cumprod.to(device))
    if config.prediction_type == "epsilon" and not scheduler.alphas_cumprod.all():
        raise InvMMError(
            "The model's noisiest time is pure noise (alpha 0, zero terminal SNR), where predicted noise says nothing "
            "of x_0, so that the model cannot make samples; velocity (v_prediction) and sample prediction can."
        )
    return Discrete(schedule, X0_FROM[config.prediction_type], clip)


def rectified_flow(
    scheduler: Any,
    device: torch.device,
    *,
    tokens: int,
    unshifted: Callable[[int], list[float]] | None = None,
) -> RectifiedFlow:
    """Read a FlowMatchEulerDiscreteScheduler; sampling uses the noise levels that it gives a pipeline.

    Args:
        scheduler: The model's scheduler, which is not changed.
        device: Device of the network.
        tokens: Length of an image's sequence in the network. A dynamic shift depends on it, also in training times.
        unshifted: Noise levels that the pipeline passes to the scheduler for a number of steps; None if it passes none.

    Raises:
        InvMMError: The scheduler is of another kind, or its time runs from noise to data.
    """
    if not isinstance(scheduler, FlowMatchEulerDiscreteScheduler) or scheduler.config.invert_sigmas:
        raise InvMMError(
            f"The model's {type(scheduler).__name__} is not supported as a rectified flow; give the pipeline a "
            "FlowMatchEulerDiscreteScheduler without invert_sigmas."
        )
    config = scheduler.config
    own = FlowMatchEulerDiscreteScheduler.from_config(config)
    sigmas, mu = own.sigmas, None
    if config.use_dynamic_shifting:
        slope = (config.max_shift - config.base_shift) / (config.max_image_seq_len - config.base_image_seq_len)
        mu = config.base_shift + slope * (tokens - config.base_image_seq_len)
        sigmas = own.time_shift(mu, 1.0, sigmas)

    def levels(steps: int) -> Tensor:
        own.set_timesteps(steps, sigmas=unshifted(steps) if unshifted else None, mu=mu)
        found: Tensor = own.sigmas
        return found

    return RectifiedFlow(sigmas.to(device), levels)


def pipeline_class(model: object, revision: str | None = None) -> str:
    """The ``_class_name`` of a diffusers pipeline: a loaded one, a local folder, or a model on the Hub.

    Raises:
        InvMMError: The folder or model does not exist, or is not a diffusers pipeline.
    """
    if isinstance(model, DiffusionPipeline):
        return type(model).__name__
    index = _index_file(model, revision)
    try:
        name = json.loads(index.read_text(encoding="utf-8"))["_class_name"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InvMMError(f"The model_index.json of {model} is damaged: it names no pipeline class.") from None
    if not isinstance(name, str):
        raise InvMMError(f"{model} brings its own pipeline code, which is never run; convert it to a stock pipeline.")
    return name


def _index_file(model: object, revision: str | None) -> Path:
    if not isinstance(model, str | Path):
        raise InvMMError(f"A model is a pipeline of diffusers, a folder or a Hub id, not a {type(model).__name__}.")
    folder = Path(model)
    if folder.is_dir():
        if not (folder / "model_index.json").is_file():
            raise InvMMError(f"{folder} has no model_index.json; name the folder that save_pretrained wrote.")
        return folder / "model_index.json"
    if isinstance(model, Path) or folder.is_absolute() or str(model).startswith(".") or str(model).count("/") > 1:
        raise InvMMError(f"There is no folder {model}.")
    try:
        return Path(hf_hub_download(str(model), "model_index.json", revision=revision))
    except Exception as error:
        raise InvMMError(
            f"{model} is neither a folder here nor a diffusers pipeline that the Hub gave us ({_first_line(error)})."
        ) from error


def load_pipeline(
    model: object,
    *,
    revision: str | None = None,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    **parts: Any,
) -> Any:
    """Load a diffusers pipeline from a folder or the Hub; a loaded one is returned unchanged.

    Only safetensors weights are loaded, and no remote code is run. A loaded pipeline keeps its device and precision.

    Args:
        model: A folder, a Hub id, or a loaded pipeline.
        revision: Branch, tag or commit on the Hub.
        device: Device of the pipeline.
        dtype: Precision of the pipeline.
        **parts: Components that replace the stored ones; None leaves one out.

    Raises:
        InvMMError: The pipeline cannot be loaded; for pickled weights the message says how to convert them.
    """
    if isinstance(model, DiffusionPipeline):
        return model
    try:
        pipeline = DiffusionPipeline.from_pretrained(
            str(model), revision=revision, dtype=dtype, use_safetensors=True, **parts
        )
    except Exception as error:
        reason = _first_line(error)
        if "safetensors" in reason or "safetensors" in str(error):
            raise InvMMError(
                f"{model} has no usable safetensors weights, and pickled ones are never loaded. Where you trust "
                f"their source, convert them: DiffusionPipeline.from_pretrained(...).save_pretrained(...) ({reason})"
            ) from error
        raise InvMMError(f"{model} cannot be loaded: {reason}") from error
    for part, module in pipeline.components.items():
        for name, tensor in module.state_dict().items() if isinstance(module, nn.Module) else ():
            if tensor.is_meta:
                raise InvMMError(f"{model} cannot be loaded: its weights lack {part}.{name}.")
    return pipeline.to(device)


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")
