"""The hooks that a plugin of invmm_eval can implement.

A plugin is a module named by an entry point in the group ``invmm_eval``. Each hook returns a mapping from names to
makers. A maker is called only when its part is needed: it imports heavy libraries itself, or is made by :func:`lazy`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import Signature
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, Protocol

import pluggy

from invmm_eval.errors import InvMMError
from invmm_eval.hints import signature_of

if TYPE_CHECKING:
    import torch

    from invmm_eval.models.backbone import Backbone
    from invmm_eval.noise import NoiseFamily
    from invmm_eval.search.detectors import Detector
    from invmm_eval.search.estimators import Estimator
    from invmm_eval.similarity import Similarity

API_VERSION = 1
"""The version of the hooks, which a plugin states as ``invmm_eval_api``.

It is raised when a hook changes in a way that breaks existing plugins. A new hook does not raise it.
"""

ANY_PIPELINE = "*"
"""Stands among the pipelines of a backbone for those that no other backbone names."""

hookspec = pluggy.HookspecMarker("invmm_eval")
hookimpl = pluggy.HookimplMarker("invmm_eval")


class BackboneMaker(Protocol):
    """Loads a model."""

    def __call__(
        self, model: object, *, revision: str | None, device: "torch.device", dtype: "torch.dtype", **options: Any
    ) -> "Backbone":
        """Return a backbone for ``model`` (a folder, a Hub id or a loaded pipeline) with the user's options."""
        ...


SimilarityMaker = Callable[..., "Similarity"]
"""``make(*, device, **options)`` returns a similarity that computes on ``device``."""

NoiseFamilyMaker = Callable[..., "NoiseFamily"]
"""``make(**options)`` returns a noise family."""

EstimatorMaker = Callable[[], "Estimator"]
"""``make()`` returns an estimator; a recipe names it in ``estimators``."""

DetectorMaker = Callable[..., "Detector"]
"""``make(**options)`` returns a detector."""


@dataclass(frozen=True)
class BackboneEntry:
    """A backbone in the registry.

    Args:
        make: Loads a model.
        pipelines: The ``_class_name`` of each diffusers pipeline that it loads, or :data:`ANY_PIPELINE`; ``--model``
            finds the backbone by them.
    """

    make: BackboneMaker
    pipelines: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not callable(self.make):
            raise InvMMError(
                f"A backbone's make is {self.make!r}; give what loads a model: a class, a function, or "
                "lazy('package.module:name')."
            )
        if isinstance(self.pipelines, str):
            raise InvMMError(f"A backbone's pipelines are a tuple of class names: write ({self.pipelines!r},).")


@dataclass(frozen=True)
class CommandEntry:
    """A command of ``invmm-eval`` in the registry. Its module is imported only when the command runs.

    Args:
        target: ``"package.module:name"`` of a function with typer's annotations, or of a ``typer.Typer``.
        help: One line for the list of commands that ``invmm-eval --help`` prints.
    """

    target: str
    help: str

    def __post_init__(self) -> None:
        _check_target("A command's target", self.target)

    def load(self) -> Any:
        """Import the target and build typer's command from it."""
        import typer

        target = _found(self.target)
        app = typer.Typer()
        if isinstance(target, typer.Typer):
            app.add_typer(target, name="command")
        else:
            app.command("command")(target)
        return typer.main.get_group(app).commands["command"]


def lazy(target: str) -> Callable[..., Any]:
    """Return a maker that imports ``"package.module:name"`` when it is called, and calls it."""
    _check_target("What is imported lazily", target)
    return _Lazy(target)


class _Lazy:
    def __init__(self, target: str) -> None:
        self._target = target

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _found(self._target)(*args, **kwargs)

    @property
    def __signature__(self) -> Signature:
        return signature_of(_found(self._target))


def _check_target(what: str, target: str) -> None:
    module, _, name = target.partition(":")
    if not (module and name):
        raise InvMMError(f"{what} is 'package.module:name', not {target!r}.")


def _found(target: str) -> Any:
    """Import what a target names.

    Raises:
        InvMMError: It cannot be imported.
    """
    try:
        return resolve_name(target)
    except (AttributeError, ImportError) as error:
        raise InvMMError(
            f"{target} cannot be imported ({type(error).__name__}: {error}); correct the name in the plugin, or "
            "install what it needs."
        ) from error


@hookspec
def register_backbones() -> Mapping[str, BackboneEntry]:  # type: ignore[empty-body]
    """Backbones by name: the diffusion models that can be audited."""


@hookspec
def register_similarities() -> Mapping[str, SimilarityMaker]:  # type: ignore[empty-body]
    """Similarities by name: they decide whether a sample is a copy of the image."""


@hookspec
def register_noise_families() -> Mapping[str, NoiseFamilyMaker]:  # type: ignore[empty-body]
    """Noise families by name: the distributions that the search optimizes."""


@hookspec
def register_estimators() -> Mapping[str, EstimatorMaker]:  # type: ignore[empty-body]
    """Estimators by name: they compute values from what a search found."""


@hookspec
def register_detectors() -> Mapping[str, DetectorMaker]:  # type: ignore[empty-body]
    """Detectors by name: cheap scores that rank images before a search."""


@hookspec
def register_commands() -> Mapping[str, CommandEntry]:  # type: ignore[empty-body]
    """Commands by name: ``invmm-eval NAME`` runs one."""
