"""The hooks of invmm_eval: all that a plugin may implement.

A plugin is a module named by an entry point in the group ``invmm_eval``. Its hooks return names mapped to makers.
A maker is called only when its part is needed, so a plugin imports heavy libraries inside it, or uses :func:`lazy`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import Signature, signature
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, Protocol

import pluggy

from invmm_eval.errors import InvMMError

if TYPE_CHECKING:
    import torch

    from invmm_eval.models.backbone import Backbone
    from invmm_eval.noise import NoiseFamily
    from invmm_eval.similarity import Similarity

API_VERSION = 1
"""What a plugin may state as ``invmm_eval_api``; it rises when a hook changes in a way that breaks plugins."""

hookspec = pluggy.HookspecMarker("invmm_eval")
hookimpl = pluggy.HookimplMarker("invmm_eval")


class BackboneMaker(Protocol):
    """Loads a model."""

    def __call__(
        self, model: object, *, revision: str | None, device: "torch.device", dtype: "torch.dtype", **options: Any
    ) -> "Backbone":
        """A backbone for ``model``, a folder, a Hub id or a loaded pipeline, with the options its user gave."""
        ...


SimilarityMaker = Callable[..., "Similarity"]
"""``make(*, device, **options)``: a similarity that computes on ``device``, with the options its user gave."""

NoiseFamilyMaker = Callable[..., "NoiseFamily"]
"""``make(**options)``: a noise family, with the options its user gave."""


@dataclass(frozen=True)
class BackboneEntry:
    """A maker, and the ``_class_name`` of each diffusers pipeline it serves."""

    make: BackboneMaker
    pipelines: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.pipelines, str):
            raise InvMMError(f"A backbone's pipelines are a tuple of class names: write ({self.pipelines!r},).")


def lazy(target: str) -> Callable[..., Any]:
    """A maker that imports ``"package.module:name"`` when it is called, and calls that."""
    return _Lazy(target)


class _Lazy:
    def __init__(self, target: str) -> None:
        self._target = target

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return resolve_name(self._target)(*args, **kwargs)

    @property
    def __signature__(self) -> Signature:
        return signature(resolve_name(self._target))


@hookspec
def register_backbones() -> Mapping[str, BackboneEntry]:  # type: ignore[empty-body]
    """Backbones by name: diffusion models that can be audited."""


@hookspec
def register_similarities() -> Mapping[str, SimilarityMaker]:  # type: ignore[empty-body]
    """Similarities by name: what decides whether a sample is a replica."""


@hookspec
def register_noise_families() -> Mapping[str, NoiseFamilyMaker]:  # type: ignore[empty-body]
    """Noise families by name: distributions that the search bends."""
