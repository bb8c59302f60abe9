"""The identity of a model: a digest that differs where anything that decides its values differs."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from diffusers import ConfigMixin, DiffusionPipeline, SchedulerMixin
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from transformers import PreTrainedTokenizerBase

from invmm_eval import strict_json
from invmm_eval.models.pipelines import unwrapped
from invmm_eval.models.weight_files import sha256

_log = logging.getLogger(__name__)

_LIBRARIES = {
    *("builtins", "collections", "torch", "diffusers", "transformers", "tokenizers", "peft", "accelerate"),
    *("torchao", "bitsandbytes"),
}
"""Packages whose code is known by their versions."""
_READ = (".json", ".safetensors", ".txt", ".model")
"""The files of a pipeline's folder that loading it reads."""
_IRRELEVANT = {
    *("training", "gradient_checkpointing", "_gradient_checkpointing_func", "_is_hf_initialized"),
    *("_hf_hook", "_old_forward", "_is_full_backward_hook", "all_tied_weights_keys", "_non_persistent_buffers_set"),
    *("_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks", "_state_dict_pre_hooks"),
    *("_load_state_dict_pre_hooks", "_load_state_dict_post_hooks", "_use_kernels", "_weight_conversions"),
    *("_compiled_call_impl", "_is_torch_compile", "_compile_kwargs"),
    *("_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_forward_pre_hooks_with_kwargs"),
    *("name_or_path", "_internal_dict", "_output_capturing_hooks_installed", "hf_quantizer"),
}
"""Attributes of modules that do not decide what a frozen view of them computes; hooks of accelerate move tensors."""


class _UnknownError(Exception):
    """Part of a model whose effect on the values cannot be known."""


def model_identity(model: object, revision: str | None = None) -> str | None:
    """The identity of a model, which distinguishes models of the same name; None where it cannot be known.

    A file has the SHA-256 of its contents, a folder that of the files that decide what is loaded from it, a model of
    the Hub its commit. A loaded pipeline has that of everything that decides its values: classes, configurations,
    tensors, attributes (adapters with their scales, attention processors) and hooks of every component;
    compilation, data parallelism and mixed precision do not count. Of one with code that belongs to none of the usual
    libraries it cannot be known, and a warning says what it is.
    """
    if isinstance(model, DiffusionPipeline):
        try:
            return _pipeline_identity(unwrapped(model))
        except (_UnknownError, RecursionError) as error:
            _log.warning(
                "The identity of this %s cannot be known, because it has %s; an audit of it cannot be resumed.",
                type(model).__name__,
                error,
            )
            return None
    if not isinstance(model, str | Path):
        return None
    if Path(model).is_file():
        return sha256(Path(model))
    if Path(model).is_dir():
        return folder_identity(Path(model))
    try:
        index = try_to_load_from_cache(str(model), "model_index.json", revision=revision)
    except HFValidationError:
        return None
    return Path(index).parent.name if isinstance(index, str) else None


def folder_identity(folder: Path) -> str:
    """The SHA-256 of a folder: of a pipeline's index and components, or else of all files that are no audit's.

    Hidden files and whatever is no regular file do not count.
    """
    digest = hashlib.sha256()
    for file in sorted(_files(folder)):
        digest.update(file.relative_to(folder).as_posix().encode())
        digest.update(bytes.fromhex(sha256(file)))
    return digest.hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    index = folder / "model_index.json"
    try:
        parts = [folder / part for part in strict_json.read_object(index) if not part.startswith("_")]
    except (OSError, ValueError):
        for file in folder.rglob("*"):
            inside = file.relative_to(folder).parents
            if _counts(file) and not any((folder / parent / "results.jsonl").exists() for parent in inside):
                yield file
        return
    yield index
    for part in parts:
        if part.is_dir():
            yield from (file for file in part.rglob("*") if file.suffix in _READ and _counts(file))


def _counts(file: Path) -> bool:
    return file.is_file() and not file.name.startswith(".")


def _pipeline_identity(pipeline: DiffusionPipeline) -> str:
    walk = _Walk()
    parts = {**pipeline.components}
    walk.add("pipeline", type(pipeline))
    walk.add("config", _config({name: value for name, value in pipeline.config.items() if name not in parts}))
    for name, value in sorted(vars(pipeline).items()):
        if callable(value) and name not in parts:
            raise _UnknownError(f"its own {name}")
        if not name.startswith("_") and isinstance(value, bool | int | float | str):  # calls change the private ones
            walk.add(f"pipeline.{name}", value)
    for name, part in sorted(parts.items()):
        walk.add(name, part)
    return walk.digest.hexdigest()


def _config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without what does not decide values: versions, and what saving and loading add."""
    added = {"transformers_version", "architectures", "dtype", "torch_dtype"}
    return {key: value for key, value in config.items() if not key.startswith("_") and key not in added}


class _Walk:
    """Adds values to a digest, each with its place and class, so that equal values give equal digests."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self._seen: dict[int, Any] = {}

    def add(self, place: str, value: Any) -> None:
        """Add a value.

        Raises:
            _UnknownError: Its effect cannot be known.
        """
        if isinstance(value, nn.Module):
            value = getattr(value, "_orig_mod", value)  # what torch.compile wraps
        kind = "list" if isinstance(value, tuple) else type(value).__qualname__  # JSON has no tuples
        self.digest.update(f"{place} {kind} ".encode())
        if value is None or isinstance(value, bool | int | float | str | bytes | torch.dtype | torch.Size):
            self.digest.update(repr(value).encode())
        elif isinstance(value, torch.device):
            pass
        elif isinstance(value, Tensor):
            self._tensor(place, value)
        elif isinstance(value, np.ndarray | np.generic):
            self._tensor(place, torch.as_tensor(value))
        elif isinstance(value, Mapping):
            for key, item in value.items():
                self.add(f"{place}.{key}", item)
        elif isinstance(value, set | frozenset):
            self.add(place, sorted(map(str, value)))
        elif isinstance(value, list | tuple):
            for number, item in enumerate(value):
                self.add(f"{place}.{number}", item)
        elif id(value) not in self._seen:
            self._seen[id(value)] = value  # kept, so that the id stays its own
            self._part(place, value)

    def _part(self, place: str, value: Any) -> None:
        if isinstance(value, type | FunctionType | BuiltinFunctionType | MethodType | partial):
            self._code(place, value)
        elif isinstance(value, PreTrainedTokenizerBase):
            self._tokenizer(place, value)
        else:
            self._object(place, value)

    def _tensor(self, place: str, tensor: Tensor) -> None:
        if tensor.is_meta or tensor.is_quantized:
            raise _UnknownError(f"a tensor of another kind at {place} (offloaded or quantised)")
        if type(tensor) not in (Tensor, nn.Parameter, nn.Buffer):
            self._known(place, type(tensor))
            if is_traceable_wrapper_subclass(tensor):  # of torchao
                names, context = tensor.__tensor_flatten__()
                self.add(place, [{name: getattr(tensor, name) for name in names}, context])
                return
            self.add(place, dict(sorted(vars(tensor).items())))  # of bitsandbytes
        self.digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        contents: Any = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        self.digest.update(contents)

    def _code(self, place: str, value: Any) -> None:
        if isinstance(value, partial):
            if getattr(value.func, "__module__", "").startswith("accelerate.hooks"):
                return
            self.add(place, [value.func, value.args, value.keywords])
        elif isinstance(value, MethodType):
            self.add(place, [value.__self__, value.__func__])
        else:
            self._known(place, value)
            self.digest.update(f"{value.__module__}.{value.__qualname__}".encode())
            for cell in getattr(value, "__closure__", None) or ():
                self.add(place, cell.cell_contents)

    def _tokenizer(self, place: str, tokenizer: Any) -> None:
        self.add(place, type(tokenizer))
        self.add(place, sorted(tokenizer.get_vocab().items()))
        for name in ("model_max_length", "padding_side", "truncation_side", "special_tokens_map"):
            self.add(f"{place}.{name}", getattr(tokenizer, name))
        if tokenizer.is_fast:  # calls with padding or truncation leave their own there
            state = json.loads(tokenizer.backend_tokenizer.to_str())
            self.add(place, {key: part for key, part in state.items() if key not in ("padding", "truncation")})

    def _object(self, place: str, value: Any) -> None:
        self.add(place, type(value))
        if isinstance(value, ConfigMixin):
            self.add(f"{place}.config", _config(value.config))
        if isinstance(value, SchedulerMixin):  # its other attributes change while it is used
            for name in ("betas", "alphas_cumprod", "_shift"):
                self.add(f"{place}.{name}", getattr(value, name, None))
            for name, own in vars(value).items():
                if callable(own):
                    self.add(f"{place}.{name}", own)
        elif to_dict := getattr(value, "to_dict", None):
            self.add(place, _config(to_dict()))
        else:
            for name, attribute in sorted(_attributes(place, value).items()):
                if name in ("_forward_hooks", "_forward_pre_hooks"):
                    self.add(f"{place}.{name}", [hook for hook in attribute.values() if not _only_reads(hook)])
                elif name == "_diffusers_hook":
                    self.add(f"{place}.{name}", attribute.hooks) if attribute.hooks else None
                elif name not in _IRRELEVANT:
                    self.add(f"{place}.{name}", attribute)

    def _known(self, place: str, code: Callable[..., Any]) -> None:
        if (code.__module__ or "builtins").partition(".")[0] not in _LIBRARIES:
            raise _UnknownError(f"{code.__module__}.{code.__qualname__} at {place}")


def _only_reads(hook: object) -> bool:
    """Whether a hook is one by which transformers reads hidden states, which any call may leave behind."""
    return getattr(hook, "__module__", None) == "transformers.utils.output_capturing"


def _attributes(place: str, value: Any) -> dict[str, Any]:
    try:
        return dict(vars(value))
    except TypeError:
        raise _UnknownError(f"a {type(value).__qualname__} at {place}") from None
