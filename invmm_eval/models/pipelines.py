"""Load diffusers pipelines safely, and read their schedulers."""

import copy
import json
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

    The weights are shared, not copied: a model in training may be audited between two of its steps, and its own
    training flags stay as they are.
    """
    shared: dict[int, Any] = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in module.parameters()}
    shared |= {id(b): b.detach() for b in module.buffers()}
    return copy.deepcopy(module, shared).eval()


@dataclass(frozen=True)
class Discrete:
    """What a scheduler of diffusers with discrete times says of its model.

    Attributes:
        schedule: Its times and noise levels.
        x0_from: How the network's output becomes x_0.
        clip: As :attr:`Backbone.clip`.
    """

    schedule: VariancePreserving
    x0_from: Conversion
    clip: float | None


def discrete(scheduler: Any, device: torch.device) -> Discrete:
    """Read a scheduler such as DDPM's, DDIM's or PNDM's.

    Raises:
        InvMMError: It predicts something unknown, thresholds dynamically, or its times are not discrete.
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
        raise InvMMError("The model's scheduler uses dynamic thresholding, which the sampler here does not know.")
    return Discrete(
        VariancePreserving(scheduler.alphas_cumprod.to(device)),
        X0_FROM[config.prediction_type],
        config.clip_sample_range if config.get("clip_sample") else None,
    )


def rectified_flow(
    scheduler: Any,
    device: torch.device,
    *,
    tokens: int,
    unshifted: Callable[[int], list[float]] | None = None,
) -> RectifiedFlow:
    """Read a FlowMatchEulerDiscreteScheduler; sampling takes the noise levels that it gives to a pipeline.

    Args:
        scheduler: The model's; it is left as it is.
        device: Where the network is.
        tokens: Length of an image's sequence in the network. A dynamic shift goes by it, in training times too.
        unshifted: Noise levels that the pipeline hands the scheduler for a number of steps; None where it hands none.

    Raises:
        InvMMError: The scheduler is of another kind, or its time runs from noise to data.
    """
    if not isinstance(scheduler, FlowMatchEulerDiscreteScheduler) or scheduler.config.invert_sigmas:
        raise InvMMError(
            f"The model's {type(scheduler).__name__} is not understood as a rectified flow; give the pipeline a "
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
        InvMMError: There is no such folder or model, or it is not a diffusers pipeline.
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
    """A diffusers pipeline from a folder or the Hub, or the loaded one that was given.

    Weights come from safetensors alone and no remote code is run. A pipeline that is given stays as it is: on its
    device and in its precision.

    Args:
        model: A folder, a Hub id, or a loaded pipeline.
        revision: Branch, tag or commit on the Hub.
        device: Where it goes.
        dtype: Its precision.
        **parts: Components to use in place of the stored ones; None leaves one out.

    Raises:
        InvMMError: It cannot be loaded; the sentence says why, and what to do where there are only pickles.
    """
    if isinstance(model, DiffusionPipeline):
        return model
    try:
        pipeline = DiffusionPipeline.from_pretrained(
            str(model), revision=revision, dtype=dtype, use_safetensors=True, **parts
        )
    except Exception as error:
        told = _first_line(error)
        if "safetensors" in told or "safetensors" in str(error):
            raise InvMMError(
                f"{model} has no usable safetensors weights, and pickled ones are never loaded. Where you trust "
                f"their source, convert them: DiffusionPipeline.from_pretrained(...).save_pretrained(...) ({told})"
            ) from error
        raise InvMMError(f"{model} cannot be loaded: {told}") from error
    for part, module in pipeline.components.items():
        for name, tensor in module.state_dict().items() if isinstance(module, nn.Module) else ():
            if tensor.is_meta:
                raise InvMMError(f"{model} cannot be loaded: its weights lack {part}.{name}.")
    return pipeline.to(device)


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")
