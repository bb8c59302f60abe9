"""Load diffusers pipelines safely, and read their schedulers."""

import copy
import logging
import math
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate.utils import extract_model_from_parallel
from accelerate.utils.memory import should_reduce_batch_size
from diffusers import DiffusionPipeline, UNet2DModel
from huggingface_hub import hf_hub_download, list_repo_files
from huggingface_hub.errors import RemoteEntryNotFoundError
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from invmm_eval import strict_json
from invmm_eval.errors import InvMMError, on_disk
from invmm_eval.models.configs import check_parts, check_pixels, check_stored, is_named
from invmm_eval.models.layouts import of_blocks, why_no_folder, why_no_pipeline
from invmm_eval.models.quiet import unlogged
from invmm_eval.models.schedule import X0_FROM, Discrete, VariancePreserving

_log = logging.getLogger(__name__)

M = TypeVar("M", bound=nn.Module)

PICKLES = {".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth"}
_SINGLE_FILES = PICKLES | {".gguf", ".h5", ".msgpack", ".onnx", ".safetensors"}
FAINT = 1e-3
"""An alpha below which a noise predictor tells next to nothing of x_0; the linear schedule of DDPM ends at 6.4e-3."""
_OPTIONAL = ("text_encoder", "tokenizer", "image_encoder", "feature_extractor", "safety_checker")


def frozen(module: M) -> M:
    """An evaluation-mode view of ``module`` whose parameters take no gradient.

    The weights are shared, not copied, and the module itself is not changed: a model may be audited between two steps
    of its training.

    Raises:
        InvMMError: The module computes by a method that was replaced, as offloading and layerwise casting do, so that
            the view would compute with the module itself.
    """
    for name, part in module.named_modules():
        if "forward" in vars(part) or any(tensor.is_meta for tensor in part.parameters(recurse=False)):
            where = f"{type(module).__name__}{name and f' ({name})'}"
            raise InvMMError(
                f"The {where} is offloaded, cast layer by layer or changed by hooks, which leave no gradient to its "
                "input; load the pipeline without them, in half precision if memory is short."
            )
    shared: dict[int, Any] = {id(p): _without_gradient(p) for p in module.parameters()}
    shared |= {id(b): b.detach() for b in module.buffers()}
    return copy.deepcopy(module, shared).eval()


def _without_gradient(parameter: nn.Parameter) -> Any:
    if type(parameter) is nn.Parameter or parameter.requires_grad:
        values = parameter.detach()
        return nn.Parameter(values.clone() if values.is_inference() else values, requires_grad=False)
    if is_traceable_wrapper_subclass(parameter):  # quantized weights of torchao
        return parameter
    # Those of bitsandbytes have scales in attributes, which their layers take away when they compute.
    view: Any = Tensor._make_subclass(type(parameter), parameter.data)
    vars(view).update({name: copy.copy(value) for name, value in vars(parameter).items()})
    return view


def unwrapped(pipeline: Any) -> Any:
    """The pipeline without what compilation, data parallelism and mixed precision wrap its modules in.

    It is not changed: where a module is wrapped, a view is returned.
    """
    modules = {name: part for name, part in pipeline.components.items() if isinstance(part, nn.Module)}
    inner = {name: _inner(part) for name, part in modules.items()}
    if all(inner[name] is part for name, part in modules.items()):
        return pipeline
    view = copy.copy(pipeline)
    vars(view).update(inner)
    return view


def _inner(module: nn.Module) -> Any:
    """The module itself. Where accelerate replaced its method by one under autocast, a view of it has its own."""
    inner: Any = extract_model_from_parallel(module, keep_torch_compile=False)
    own = vars(inner).get("_original_forward")
    if getattr(own, "__func__", None) is not type(inner).forward:
        return inner
    view = copy.copy(inner)
    for name in ("forward", "_original_forward", "_is_accelerate_prepared"):
        vars(view).pop(name, None)
    return view


def image_sides(network: Any, factor: int = 1) -> tuple[int, int]:
    """Height and width of a model's images: ``factor`` times the ``sample_size`` of its network's config.

    Raises:
        InvMMError: The config states no size, or one that the network cannot compute.
    """
    stated = network.config.get("sample_size")
    sides = [stated, stated] if type(stated) is int else stated
    if not isinstance(sides, list | tuple) or len(sides) != 2 or any(type(s) is not int or s < 1 for s in sides):
        raise InvMMError(
            f"The network's config has sample_size {stated!r}; set it to the side of its input or to [height, width], "
            "in the config.json beside its weights, or by register_to_config(sample_size=...)."
        )
    step = 2 ** (len(network.config.block_out_channels) - 1) if isinstance(network, UNet2DModel) else 1
    if any(side % step for side in sides):
        raise InvMMError(
            f"The network's config has sample_size {stated!r}, which the network cannot halve and double again; set it "
            f"to multiples of {step}."
        )
    height, width = sides[0] * factor, sides[1] * factor
    check_pixels(height, width)
    return height, width


def discrete(scheduler: Any, device: torch.device) -> Discrete:
    """Read a scheduler such as DDPM's, DDIM's or PNDM's.

    Raises:
        InvMMError: Its prediction type is unknown, it uses dynamic thresholding, its times are not discrete, or its
            noise levels or clip range make no sense.
    """
    config = scheduler.config
    if not isinstance(getattr(scheduler, "alphas_cumprod", None), Tensor) or config.get("use_flow_sigmas"):
        raise InvMMError(
            f"The model's {type(scheduler).__name__} has no table of discrete noise levels; give the pipeline the "
            "scheduler that the model was trained with."
        )
    known = [name for name in X0_FROM if name != "flow_prediction"]
    if config.prediction_type not in known:
        raise InvMMError(f"The model's scheduler predicts {config.prediction_type!r}; known are {', '.join(known)}.")
    if config.get("thresholding"):
        raise InvMMError("The model's scheduler uses dynamic thresholding, which is not supported.")
    clip = config.clip_sample_range if config.get("clip_sample") else None
    if config.get("clip_sample") and not 0 < (clip or 0) < math.inf:
        raise InvMMError(f"The model's scheduler clips samples to {clip}; its clip_sample_range must be above 0.")
    schedule = VariancePreserving(scheduler.alphas_cumprod.to(device))
    if config.prediction_type == "epsilon" and not scheduler.alphas_cumprod.all():
        raise InvMMError(
            "The model's noisiest time is pure noise (alpha 0, zero terminal SNR), where predicted noise says nothing "
            "of x_0, so that the model cannot make samples; velocity (v_prediction) and sample prediction can."
        )
    if config.prediction_type == "epsilon":
        _warn_of_faint(scheduler.alphas_cumprod.sqrt())
    return Discrete(schedule, X0_FROM[config.prediction_type], clip)


def _warn_of_faint(alphas: Tensor) -> None:
    """Tell that a noise predictor has times with next to no signal, where x_0 = (x_t - sigma n) / alpha."""
    if faint := int((alphas < FAINT).sum()):
        _log.warning(
            "The model predicts noise, and %d of its %d times have alpha below %g (down to %.2g), by which errors of "
            "its output are divided in x_0, so that searches may find nothing; to leave these times out, give its "
            "scheduler trained_betas=scheduler.betas[:%d].tolist().",
            *(faint, len(alphas), FAINT, alphas.min(), len(alphas) - faint),
        )


def pipeline_class(model: object, revision: str | None = None) -> str:
    """The ``_class_name`` of a diffusers pipeline: a loaded one, a local folder, or a model on the Hub.

    Raises:
        InvMMError: The folder or model does not exist, or is not a diffusers pipeline.
    """
    if isinstance(model, DiffusionPipeline):
        return type(model).__name__
    index = _index_file(model, revision)
    try:
        with on_disk(f"{index} cannot be read"):
            name = strict_json.read_object(index)["_class_name"]
    except (ValueError, KeyError, TypeError):
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
            raise InvMMError(why_no_pipeline(folder))
        return folder / "model_index.json"
    if folder.suffix in _SINGLE_FILES:
        raise InvMMError(f"There is no file {model}.")
    if absent := why_no_folder(model, revision):
        raise InvMMError(absent)
    try:
        return Path(hf_hub_download(str(model), "model_index.json", revision=revision))
    except RemoteEntryNotFoundError:
        raise InvMMError(of_blocks(model)) from None
    except Exception as error:
        raise InvMMError(
            f"{model} is neither a local folder nor a diffusers pipeline that the Hub provides ({first_line(error)})."
        ) from error


def load_pipeline(
    model: object,
    *,
    revision: str | None = None,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    **parts: Any,
) -> Any:
    """Load a diffusers pipeline from a folder or the Hub; a loaded one is returned as it is, its modules unwrapped.

    Only safetensors weights are loaded, and no remote code is run. Where weights are stored only as a variant, such as
    fp16, that variant is loaded. A loaded pipeline keeps its device and precision.

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
        pipeline = unwrapped(model)
        check_parts(pipeline.components)
        return pipeline
    index = _index(model, revision)
    check_stored(model, index, revision)
    files = _files(model, revision)
    variants = _variants(files, {name for name, kind in index.items() if is_named(kind)} - parts.keys())
    if len(variants) > 1:
        raise InvMMError(
            f"{model} has its weights only as the variants {', '.join(sorted(variants))}; keep one's files."
        )
    how = {"revision": revision, "dtype": dtype, "use_safetensors": True, "variant": next(iter(variants), None)}
    try:
        # JSON has no numbers as names, which diffusers expects of DiT's classes.
        with unlogged("diffusers.pipelines.pipeline_utils", "Expected types for id2label"):
            pipeline = DiffusionPipeline.from_pretrained(str(model), **how, **{**_absent(model, index), **parts})
    except Exception as error:
        raise InvMMError(_why(model, files, first_line(error))) from error
    check_parts(pipeline.components)
    return complete(pipeline, model, device)


def complete(pipeline: Any, model: object, device: torch.device) -> Any:
    """The pipeline that was loaded from ``model``, on a device.

    Raises:
        InvMMError: Some of its weights were not there, or the device has not enough memory for them.
    """
    for part, module in pipeline.components.items():
        for name, tensor in module.state_dict().items() if isinstance(module, nn.Module) else ():
            if tensor.is_meta:
                raise InvMMError(f"{model} cannot be loaded: its weights lack {part}.{name}.")
    try:
        return pipeline.to(device)
    except RuntimeError as error:
        if not should_reduce_batch_size(error):
            raise
        raise InvMMError(f"Memory ran out for the weights of {model}; choose a smaller dtype, or offload.") from error


def _index(model: object, revision: str | None) -> dict[str, Any]:
    """The index of a pipeline; empty where it is damaged, which loading tells."""
    try:
        return strict_json.read_object(_index_file(model, revision))
    except (OSError, ValueError):
        return {}


def _absent(model: object, index: Mapping[str, Any]) -> dict[str, None]:
    """The encoders and what reads for them that a folder was saved without; the pipeline decides whether it needs them.

    diffusers loads a folder only if each is there or is None explicitly.
    """
    folder = Path(str(model))
    parts = [name for name, kind in index.items() if kind == [None, None] or is_named(kind)]
    optional = [name for name in parts if name.startswith(_OPTIONAL)] if folder.is_dir() else []
    return {name: None for name in optional if not (folder / name).exists()}


def _files(model: object, revision: str | None) -> list[str]:
    """The files of a pipeline's components, as ``component/name``; none if they cannot be listed."""
    folder = Path(str(model))
    if folder.is_dir():
        return [file.relative_to(folder).as_posix() for file in folder.glob("*/*")]
    try:
        return [name for name in list_repo_files(str(model), revision=revision) if name.count("/") == 1]
    except Exception:  # what is wrong is told by the attempt to load it
        return []


def _variants(files: Iterable[str], parts: Collection[str]) -> set[str]:
    """The variants, such as fp16, that each of the parts without plain safetensors weights has."""
    found = defaultdict[str, set[str]](set)
    for file in files:
        part, _, name = re.sub(r"-\d{5}-of-\d{5}", "", file).partition("/")
        if name.endswith(".safetensors") and part in parts:
            found[part].add(name.removesuffix(".safetensors").partition(".")[2])
    lacking = [variants for variants in found.values() if "" not in variants]
    return set.intersection(*lacking) if lacking else set()


def _why(model: object, files: Iterable[str], reason: str) -> str:
    """Why a pipeline could not be loaded, and what to do."""
    for file in files:
        at = Path(str(model)) / file
        if at.parent.is_dir() and not at.is_file() and at.suffix in (".json", ".safetensors"):
            return f"{model} cannot be loaded: {file} is no file (a link to nowhere, a folder or a pipe); restore it."
    found = defaultdict[str, set[str]](set)
    for file in files:
        found[file.partition("/")[0]].add(Path(file).suffix)
    if any(kinds & PICKLES and ".safetensors" not in kinds for kinds in found.values()):
        return (
            f"{model} has no usable safetensors weights, and pickled ones are never loaded. Where you trust their "
            f"source, convert them: DiffusionPipeline.from_pretrained(...).save_pretrained(...) ({reason})"
        )
    return f"{model} cannot be loaded: {reason}"


def first_line(error: BaseException) -> str:
    """The first line of what an error says, without its full stop, and the next where it ends in a colon."""
    first, *more = (str(error).strip() or type(error).__name__).splitlines()
    return " ".join([first, *map(str.strip, more[: first.endswith(":")])]).rstrip(".")
