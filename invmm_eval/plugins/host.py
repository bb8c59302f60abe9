"""The registry: the plugins of this process and the parts they register.

Plugins are entry points of the group ``invmm_eval``. They are loaded one by one: a broken one is reported and skipped
while the others work. A name registered twice is an error, so that no result depends on the order of plugins.
"""

import logging
import os
import re
import sys
import textwrap
from collections.abc import Callable, Collection, Mapping
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata
from inspect import signature
from types import MappingProxyType
from typing import Any, TypeVar

import pluggy

from invmm_eval.errors import InvMMError, did_you_mean
from invmm_eval.plugins import builtin
from invmm_eval.plugins import hooks as hookspecs
from invmm_eval.plugins.hooks import (
    ANY_PIPELINE,
    API_VERSION,
    BackboneEntry,
    CommandEntry,
    DetectorMaker,
    EstimatorMaker,
    NoiseFamilyMaker,
    SimilarityMaker,
)

T = TypeVar("T")

_KINDS = {
    "register_backbones": "backbone",
    "register_similarities": "similarity",
    "register_noise_families": "noise family",
    "register_estimators": "estimator",
    "register_detectors": "detector",
    "register_commands": "command",
}
_ENTRIES: Mapping[str, type] = {"register_backbones": BackboneEntry, "register_commands": CommandEntry}
"""What a hook returns instead of a plain maker."""
_HOW_TO_SKIP = "INVMM_EVAL_PLUGINS=no:NAME skips an installed plugin"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Source:
    name: str
    distribution: str | None
    version: str | None

    def __str__(self) -> str:
        return f"{self.name!r} ({self.distribution} {self.version})" if self.distribution else repr(self.name)


@dataclass(frozen=True)
class Plugin(_Source):
    """A plugin that works. One registered by :meth:`Host.register` has no distribution and no version.

    Attributes:
        hooks: The hooks it implements.
        gives: The names it registers, by kind: ``backbones``, ``similarities``, ``noise_families``, ``estimators``,
            ``detectors`` and ``commands``.
    """

    hooks: tuple[str, ...]
    gives: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class BrokenPlugin(_Source):
    """A plugin that does not work.

    Attributes:
        cause: Why, in one line.
    """

    cause: str

    def __str__(self) -> str:
        host_version = metadata.version("invmm-eval")
        return f"The plugin {super().__str__()} does not work with invmm-eval {host_version}: {self.cause}"


class Host:
    """The built-in parts and those of plugins.

    Args:
        allow: Names of the entry points to load; None loads all.
        block: Names of entry points to skip.
        strict: Raise an error if a plugin is broken, instead of logging a warning and skipping it.
        entry_points: Whether to look for installed plugins.

    Attributes:
        plugins: The plugins that work, the built-in one first.
        broken: The plugins that were skipped because they do not work.
        backbones: Backbones by name.
        similarities: Makers of similarities by name.
        noise_families: Makers of noise families by name.
        estimators: Makers of estimators by name.
        detectors: Makers of detectors by name.
        commands: Commands of plugins by name.

    Raises:
        InvMMError: A name or a pipeline class is registered twice, an allowed plugin is not installed, or a plugin is
            broken and ``strict`` is set.
    """

    def __init__(
        self,
        *,
        allow: Collection[str] | None = None,
        block: Collection[str] = (),
        strict: bool = False,
        entry_points: bool = True,
    ) -> None:
        self.plugins: tuple[Plugin, ...] = ()
        self.broken: tuple[BrokenPlugin, ...] = ()
        self._parts: dict[str, dict[str, Any]] = {hook: {} for hook in _KINDS}
        self.backbones: Mapping[str, BackboneEntry] = MappingProxyType(self._parts["register_backbones"])
        self.similarities: Mapping[str, SimilarityMaker] = MappingProxyType(self._parts["register_similarities"])
        self.noise_families: Mapping[str, NoiseFamilyMaker] = MappingProxyType(self._parts["register_noise_families"])
        self.estimators: Mapping[str, EstimatorMaker] = MappingProxyType(self._parts["register_estimators"])
        self.detectors: Mapping[str, DetectorMaker] = MappingProxyType(self._parts["register_detectors"])
        self.commands: Mapping[str, CommandEntry] = MappingProxyType(self._parts["register_commands"])
        core = _Source("builtin", "invmm-eval", metadata.version("invmm-eval"))
        self._owners = {f"command {name!r}": core for name in builtin.COMMANDS}
        self._packages: dict[str, str] = {}

        self._add(core, lambda: builtin, strict=True)
        points = sorted(metadata.entry_points(group="invmm_eval")) if entry_points else []
        if missing := sorted(set(allow or ()).difference(point.name for point in points)):
            installed = ", ".join(point.name for point in points) or "none"
            raise InvMMError(
                f"The plugin {missing[0]!r} in INVMM_EVAL_PLUGINS is not installed; installed plugins: {installed}."
            )
        for point in points:
            if point.name not in block and (allow is None or point.name in allow):
                assert point.dist is not None
                self._packages[point.name] = _package(point.module)
                with redirect_stdout(sys.stderr):  # what a command prints may be read by a program
                    self._add(_Source(point.name, point.dist.name, point.dist.version), point.load, strict=strict)

    def register(self, plugin: object, name: str | None = None) -> None:
        """Add a module, a class or an instance that implements hooks, as a test or a notebook does.

        Args:
            plugin: The module, class or instance.
            name: Its name; None takes its ``__name__`` or that of its class.

        Raises:
            InvMMError: It is broken or registers a name that is taken; nothing of it is added.
        """
        own_name = getattr(plugin, "__name__", type(plugin).__name__)
        self._add(_Source(name or own_name, None, None), lambda: plugin, strict=True)

    def backbone(self, name: str) -> BackboneEntry:
        """Return the backbone of this name; an :class:`InvMMError` lists the known names."""
        return _find("backbone", name, self.backbones)

    def similarity(self, name: str) -> SimilarityMaker:
        """Return the similarity of this name; an :class:`InvMMError` lists the known names."""
        return _find("similarity", name, self.similarities)

    def noise_family(self, name: str) -> NoiseFamilyMaker:
        """Return the noise family of this name; an :class:`InvMMError` lists the known names."""
        return _find("noise family", name, self.noise_families)

    def estimator(self, name: str) -> EstimatorMaker:
        """Return the estimator of this name; an :class:`InvMMError` lists the known names."""
        return _find("estimator", name, self.estimators)

    def detector(self, name: str) -> DetectorMaker:
        """Return the detector of this name; an :class:`InvMMError` lists the known names."""
        return _find("detector", name, self.detectors)

    def backbone_for(self, pipeline_class: str) -> BackboneEntry:
        """Return the backbone of the diffusers pipelines of this ``_class_name``, or else the one that takes any."""
        entries = {name: entry for entry in self.backbones.values() for name in entry.pipelines}
        return entries.get(pipeline_class, entries[ANY_PIPELINE])

    def versions(
        self,
        backbone: object,
        similarity: str = "",
        noise: str = "",
        estimators: Collection[str] = (),
        detector: str = "",
    ) -> dict[str, str]:
        """Return the versions of the distributions that provide these parts, by distribution.

        Args:
            backbone: The backbone; its plugin is the one in whose package its class is.
            similarity: Registered name of the similarity.
            noise: Registered name of the noise family.
            estimators: Registered names of the estimators.
            detector: Registered name of the detector.
        """
        package = _package(type(backbone).__module__)
        return {
            plugin.distribution: plugin.version
            for plugin in self.plugins
            if plugin.distribution and plugin.version
            if package == self._packages.get(plugin.name)
            or similarity in plugin.gives["similarities"]
            or noise in plugin.gives["noise_families"]
            or not set(estimators).isdisjoint(plugin.gives["estimators"])
            or detector in plugin.gives["detectors"]
        }

    def _add(self, source: _Source, load: Callable[[], object], *, strict: bool) -> None:
        try:
            parts = _collect(load(), source)
        except BaseException as error:  # a module may call sys.exit when it is imported
            if isinstance(error, KeyboardInterrupt):
                raise
            broken = BrokenPlugin(**asdict(source), cause=_cause(error))
            if strict:
                raise InvMMError(f"{broken}; fix it, or skip it ({_HOW_TO_SKIP}).") from error
            _log.warning("%s; it is skipped.", broken)
            self.broken += (broken,)
            return
        owners = dict(self._owners)
        for claim in _claims(source, parts):
            if claim in owners:
                raise InvMMError(
                    f"The {claim} is registered twice, by {owners[claim]} and by {source}; keep one of them "
                    f"({_HOW_TO_SKIP})."
                )
            owners[claim] = source
        self._owners = owners
        for hook, by_name in parts.items():
            self._parts[hook].update(by_name)
        gives = {hook.removeprefix("register_"): tuple(parts.get(hook, ())) for hook in _KINDS}
        self.plugins += (Plugin(**asdict(source), hooks=tuple(parts), gives=gives),)


@cache
def host() -> Host:
    """Return the host of this process, which is created on first use.

    ``INVMM_EVAL_PLUGINS`` lists the entry points to load, separated by commas; ``no:NAME`` skips one, and a list of
    only such items loads all others. ``INVMM_EVAL_STRICT=1`` makes a broken plugin an error.
    """
    items = [item.strip() for item in os.environ.get("INVMM_EVAL_PLUGINS", "").split(",") if item.strip()]
    block = {item.removeprefix("no:") for item in items if item.startswith("no:")}
    allow = {item for item in items if not item.startswith("no:")}
    return Host(allow=allow or None, block=block, strict=os.environ.get("INVMM_EVAL_STRICT", "0") not in ("", "0"))


def _collect(plugin: object, source: _Source) -> dict[str, Mapping[str, Any]]:
    """What each hook of a plugin returns.

    Each plugin has its own manager: a shared one would not say which plugin a part or a misspelt hook belongs to.
    """
    stated = getattr(plugin, "invmm_eval_api", API_VERSION)
    if not isinstance(stated, int):
        raise InvMMError(f"its invmm_eval_api is {stated!r}; make it the number {API_VERSION}")
    if stated != API_VERSION:
        older = "invmm-eval" if stated > API_VERSION else source.distribution or "the plugin"
        raise InvMMError(f"it is written for version {stated} of the hooks, not {API_VERSION}; upgrade {older}")
    manager = pluggy.PluginManager("invmm_eval")
    manager.add_hookspecs(hookspecs)
    for name in dir(plugin):
        if marked := manager.parse_hookimpl_opts(plugin, name):
            _check_hook(marked["specname"] or name, getattr(plugin, name))
    manager.register(plugin)
    callers = manager.get_hookcallers(plugin)
    if not callers:
        raise InvMMError("it implements no hook; mark hooks with invmm_eval.plugin.hookimpl")
    parts = {}
    for caller in callers:
        [by_name] = caller() or [None]
        if not isinstance(by_name, Mapping):
            raise InvMMError(f"{caller.name} returned a {type(by_name).__name__}, not a mapping")
        entry = _ENTRIES.get(caller.name)
        for name, part in by_name.items():
            if not isinstance(name, str):
                raise InvMMError(f"{caller.name} has the name {name!r}; make it a text")
            if not (isinstance(part, entry) if entry else callable(part)):
                expected = entry.__name__ if entry else "maker (its class, or lazy('package.module:Class'))"
                found = f"the class {part.__name__}" if isinstance(part, type) else f"a {type(part).__name__}"
                raise InvMMError(f"{caller.name} maps {name!r} to {found}, not to a {expected}")
            if entry is CommandEntry and not re.fullmatch("[a-z][a-z0-9-]*", name):
                raise InvMMError(f"{caller.name} has the name {name!r}; use lower-case words joined by hyphens")
        parts[caller.name] = by_name
    return parts


def _check_hook(hook: str, function: Callable[..., object]) -> None:
    if hook not in _KINDS:
        raise InvMMError(f"there is no hook {hook!r}{did_you_mean(hook, _KINDS)}; hooks are {', '.join(_KINDS)}")
    if parameters := signature(function).parameters:
        raise InvMMError(f"{hook} takes the arguments {', '.join(parameters)}; a hook takes none")


def _claims(source: _Source, parts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Descriptions of everything that only one plugin may provide."""
    names = [f"{_KINDS[hook]} {name!r}" for hook, by_name in parts.items() for name in by_name]
    pipelines = [
        f"pipeline class {p}" for entry in parts.get("register_backbones", {}).values() for p in entry.pipelines
    ]
    return [f"plugin {source.name!r}", *names, *pipelines]


def _package(module: str) -> str:
    return module.partition(".")[0]


def _cause(error: BaseException) -> str:
    message = str(error) if isinstance(error, InvMMError) else f"{type(error).__name__}: {error}"
    return textwrap.shorten(message, 300, placeholder=" ...").rstrip(".: ")


def _find(kind: str, name: str, parts: Mapping[str, T]) -> T:
    if name not in parts:
        close = did_you_mean(name, parts)
        install = "" if close else " A plugin's is known once it is installed: invmm-eval plugins lists them."
        raise InvMMError(
            f"There is no {kind} {name!r}{close}; known names: {', '.join(sorted(parts)) or 'none'}.{install}"
        )
    return parts[name]
