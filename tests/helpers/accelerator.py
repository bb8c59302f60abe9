# mypy: disable-error-code="no-untyped-call, override"
"""A pretend accelerator: it computes on the CPU and counts each time that the host would wait for a real one.

The host waits when it reads a tensor of the device (``item``, ``tolist``, ``bool``, ``cpu``), when a result's shape
depends on values (``nonzero``, a mask or a scalar tensor as an index), and when ordinary memory is copied to the device
(from lists too). Copies of page-locked memory with ``non_blocking`` are queued.

PyTorch allows one such backend in a process, for good, so measurements run in a process of their own:
:func:`measured` starts it, and this module as a script is what it runs.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

AVAILABLE = hasattr(backend_registration, "_setup_privateuseone_for_python_backend")
"""Whether this version of PyTorch lets Python define a device."""

NAME = "pretend"
_aten = torch.ops.aten
_READS = {_aten._local_scalar_dense.default, _aten.equal.default, _aten.is_nonzero.default}
_SHAPES = {_aten.nonzero.default, _aten.masked_select.default, _aten.repeat_interleave.Tensor}
_INDEXING = {_aten.index.Tensor, _aten.index_put_.default, _aten.index_put.default, _aten._index_put_impl_.default}


class OnDevice(Tensor):
    """A tensor of the pretend device, whose values are those of a tensor on the CPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor, requires_grad: bool = False) -> "OnDevice":
        made: OnDevice = torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            dtype=held.dtype,
            device=torch.device(NAME, 0),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            requires_grad=requires_grad,
        )
        made.held = held
        return made

    def __deepcopy__(self, memo: Any) -> "OnDevice":
        return OnDevice(self.held.clone())

    def tolist(self) -> Any:
        """Read the values."""
        Device.current.waits += 1
        return self.held.tolist()

    def __format__(self, how: str) -> str:
        return format(self.item(), how) if self.ndim == 0 else repr(self)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return Device.current.compute(func, args, kwargs or {})


class Device(TorchDispatchMode):
    """Counts while it is entered.

    Attributes:
        waits: Times that the host waited.
    """

    current: "Device"

    def __init__(self) -> None:
        super().__init__()
        self.waits: int = 0
        self._locked: set[int] = set()
        self._kept: list[Tensor] = []
        Device.current = self

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.compute(func, args, kwargs or {})

    def compute(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Compute on the CPU what an operation would on the devices of its arguments."""
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        inside = any(isinstance(tensor, OnDevice) for tensor in given)
        if func is _aten.is_pinned.default:
            return id(args[0]) in self._locked
        if func is _aten._pin_memory.default:
            if inside:
                raise RuntimeError("only memory of the CPU can be page-locked")
            locked = args[0].clone()
            self._locked.add(id(locked))
            self._kept.append(locked)  # so that no other tensor takes its id
            return locked
        if func is _aten._fused_sdp_choice.default:
            return 0
        asked = kwargs.get("device")
        stays = inside if asked is None else torch.device(asked).type == NAME
        if func is _aten._to_copy.default:
            self.copied(args[0], to=stays, queued=kwargs.get("non_blocking", False))
        elif func is _aten.copy_.default:
            self.copied(args[1], to=isinstance(args[0], OnDevice), queued=len(args) > 2 and args[2])
        elif inside and func in _READS | _SHAPES:
            self.waits += 1
        elif func in _INDEXING and isinstance(args[0], OnDevice):
            indices = [index for index in args[1] if index is not None]
            self.waits += sum(index.dtype is torch.bool or not isinstance(index, OnDevice) for index in indices)
        options = {key: value for key, value in kwargs.items() if key not in ("pin_memory", "non_blocking")}
        if "device" in options:
            options["device"] = "cpu" if stays else options["device"]
        out = func(*tree_map(_values, args), **tree_map(_values, options))
        if args and isinstance(args[0], OnDevice) and out is args[0].held:
            return args[0]
        return tree_map(lambda leaf: OnDevice(leaf) if isinstance(leaf, Tensor) else leaf, out) if stays else out

    def copied(self, source: Tensor, *, to: bool, queued: bool) -> None:
        """Count a copy from one side to the other; ``to`` the device."""
        if to and not isinstance(source, OnDevice):
            self.waits += not (queued and id(source) in self._locked)
        elif not to and isinstance(source, OnDevice):
            self.waits += 1


def _values(leaf: Any) -> Any:
    return leaf.held if isinstance(leaf, OnDevice) else leaf


def moved(module: nn.Module) -> None:
    """Move weights to the device, in place."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = nn.Parameter(OnDevice(parameter.detach()), requires_grad=False)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = OnDevice(buffer)


def start() -> None:
    """Make the device known to PyTorch, and to the package as one that copies asynchronously."""
    import invmm_eval.device
    import invmm_eval.models.generic.proof
    import invmm_eval.search.target
    import invmm_eval.testing.promises

    backend_registration._setup_privateuseone_for_python_backend(NAME)
    library = torch.library.Library("aten", "IMPL")
    globals()["_registered"] = library  # it is undone when the object goes

    def empty_strided(size: Any, stride: Any, *, dtype: Any = None, **_: Any) -> Tensor:
        return OnDevice(torch.empty_strided(size, stride, dtype=dtype))

    def empty(size: Any, *, dtype: Any = None, **_: Any) -> Tensor:
        return OnDevice(torch.empty(size, dtype=dtype))

    def copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
        Device.current.copied(source, to=isinstance(target, OnDevice), queued=non_blocking)
        _values(target).copy_(_values(source))
        return target

    library.impl("empty_strided", empty_strided, "PrivateUse1")
    library.impl("empty.memory_format", empty, "PrivateUse1")
    library.impl("_copy_from", copy_from, "PrivateUse1")
    invmm_eval.device.ASYNCHRONOUS.add(NAME)
    # The device has no random numbers of its own: those of the CPU stand in.
    random: Any = getattr(torch, NAME)
    random.get_rng_state, random.set_rng_state = lambda *_: torch.get_rng_state(), lambda *_: None
    for module in (invmm_eval.search.target, invmm_eval.models.generic.proof, invmm_eval.testing.promises):
        module.Generator = lambda _="cpu": torch.Generator()  # type: ignore[attr-defined]


def probes() -> dict[str, int]:
    """The waits of each way to touch the device."""
    device, found = Device(), {}
    with device:
        x = torch.arange(6.0).pin_memory().to(NAME, non_blocking=True)
        scalar, rows = x[2].long(), torch.arange(3, device=NAME)
        ways: dict[str, Callable[[], object]] = {
            "item": lambda: x[0].item(),
            "float": lambda: float(x.sum()),
            "bool": lambda: bool(x[0] > 0),
            "tolist": lambda: x.tolist(),
            "cpu": lambda: x.cpu(),
            "nonzero": lambda: x.nonzero(),
            "mask": lambda: x[x > 2],
            "scalar index": lambda: x[scalar],
            "list index": lambda: x[[1, 2]],
            "copy of ordinary memory": lambda: torch.arange(3.0).to(NAME),
            "copy that may not wait, of ordinary memory": lambda: torch.arange(3.0).to(NAME, non_blocking=True),
            "copy that waits, of page-locked memory": lambda: torch.arange(3.0).pin_memory().to(NAME),
            "tensor of a list": lambda: torch.tensor([1.0, 2.0], device=NAME),
            "copy of page-locked memory": lambda: torch.arange(3.0).pin_memory().to(NAME, non_blocking=True),
            "index on the device": lambda: x[rows],
            "take": lambda: x.take(scalar),
            "arithmetic": lambda: (x * 2 + x[0]).sum(),
            "slice": lambda: x[1:3],
        }
        for name, touch in ways.items():
            device.waits = 0
            touch()
            found[name] = device.waits
    return found


def _loaded(model: str, where: torch.device) -> Any:
    """The small ``pixel``, ``few steps`` or ``guided`` model as a backbone on a device."""
    from diffusers import LCMScheduler

    from invmm_eval.audits.plan import load_backbone
    from invmm_eval.testing import tiny

    pipeline: Any = tiny.tiny_stable_diffusion() if model == "guided" else tiny.tiny_ddpm()
    if model == "few steps":
        pipeline.register_modules(scheduler=LCMScheduler.from_config(pipeline.scheduler.config))
    for part in pipeline.components.values():
        if isinstance(part, nn.Module) and where.type == NAME:
            moved(part)
    backbone: Any = load_backbone(pipeline)
    backbone.device = where
    return backbone


def search(
    model: str, *, images: int = 2, on_device: bool = True, micro_batch: int | None = None, **settings: Any
) -> dict[str, Any]:
    """A short search of some images with two checks, which none of them passes.

    Returns:
        ``waits``: those from one call of ``on_step`` to the next, and those after the last; ``found``: the values.
    """
    from invmm_eval.noise.gaussian import diagonal
    from invmm_eval.recipe import Recipe
    from invmm_eval.search.engine import invert
    from invmm_eval.search.target import Target
    from invmm_eval.similarity.pixel_cosine import PixelCosine

    where = torch.device(NAME, 0) if on_device else torch.device("cpu")
    device = Device()
    with device:
        backbone = _loaded(model, where)
        pixels = torch.randint(0, 256, (images, *backbone.image_shape), generator=torch.Generator().manual_seed(0))
        targets = [Target(image.to(torch.uint8), str(index)) for index, image in enumerate(pixels)]
        quick = {"max_steps": 6, "check_every": 3, "draws": 2, "check_images": 2, "sampler_steps": 4, "threshold": 2.0}
        recipe = Recipe.from_record({**quick, **settings})
        device.waits, waits = 0, []

        def count() -> None:
            waits.append(device.waits)
            device.waits = 0

        found = list(
            invert(
                backbone,
                targets,
                PixelCosine(device=where),
                diagonal(),
                recipe=recipe,
                batch_size=images,
                micro_batch=micro_batch,
                on_step=lambda _: count(),
            )
        )
        count()
    values = [[result.status, result.error, result.trace] for result in found]
    return {"waits": waits, "found": values}


def sampling(steps: int, giving_up: bool) -> int:
    """The waits of sampling three images, of which those that are not near the first may be given up on the way."""
    from invmm_eval.search.sampling import Rejection, sample

    device = Device()
    with device:
        backbone = _loaded("pixel", torch.device(NAME, 0))
        noise = OnDevice(torch.randn((3, *backbone.image_shape), generator=torch.Generator().manual_seed(0)))
        rejection = (
            Rejection(noise[:1].expand(3, -1, -1, -1), 0 * noise[:1], {1: torch.full((3,), 0.9)}) if giving_up else None
        )
        device.waits = 0
        sample(backbone, noise, {}, {}, torch.ones(3), steps=steps, micro_batch=3, rejection=rejection)
        return device.waits


def conforms() -> bool:
    """Whether the small model of pixels passes the conformance kit on the device."""
    from invmm_eval.testing import check_backbone

    with Device():
        check_backbone(_loaded("pixel", torch.device(NAME, 0)))
    return True


def measured(requests: dict[str, tuple[str, list[Any], dict[str, Any]]]) -> dict[str, Any]:
    """What functions of this module return, called in a process that has the device.

    Args:
        requests: The name of a function and its arguments, by the name of the answer.
    """
    done = subprocess.run(
        [sys.executable, "-m", "tests.helpers.accelerator", json.dumps(requests)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answers


if __name__ == "__main__":
    torch.set_num_threads(1)
    start()
    print(
        json.dumps(
            {
                name: globals()[function](*arguments, **options)
                for name, (function, arguments, options) in json.loads(sys.argv[1]).items()
            }
        )
    )
