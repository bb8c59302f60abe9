"""The only registry there is: the plugins of this process and the parts they give.

Plugins are entry points of the group ``invmm_eval``. They are loaded one by one, so that a broken one is told and left
out while the others work. A name that comes twice is an error: no result may depend on the order of plugins.
"""

import logging
import os
import textwrap
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from functools import cache
from importlib import metadata
from types import MappingProxyType
from typing import Any, TypeVar

import pluggy

from invmm_eval.errors import InvMMError
from invmm_eval.plugins import builtin
from invmm_eval.plugins import hooks as hookspecs
from invmm_eval.plugins.hooks import API_VERSION, BackboneEntry, NoiseFamilyMaker, SimilarityMaker

T = TypeVar("T")

_GIVES = {
    "register_backbones": "backbone",
    "register_similarities": "similarity",
    "register_noise_families": "noise family",
}
_LEAVE_OUT = "INVMM_EVAL_PLUGINS=no:NAME leaves an installed plugin out"
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
    """A plugin that works; one that was registered by hand has no distribution and no version.

    Attributes:
        hooks: The hooks it implements.
        gives: The names it gives, by ``backbones``, ``similarities`` and ``noise_families``.
    """

    hooks: tuple[str, ...]
    gives: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class BrokenPlugin(_Source):
    """A plugin that does not work, and why, in one line."""

    cause: str

    def __str__(self) -> str:
        host_version = metadata.version("invmm-eval")
        return f"The plugin {super().__str__()} does not work with invmm-eval {host_version}: {self.cause}"


class Host:
    """The built-in parts and those of plugins.

    Args:
        allow: Entry points to load, by name; None loads all.
        block: Entry points to leave out, by name.
        strict: Raise where a plugin is broken, instead of logging it and leaving it out.
        entry_points: Look for installed plugins.

    Attributes:
        plugins: The plugins that work, the built-in one first.
        broken: The plugins that were left out because they do not work.
        backbones: Backbones by name.
        similarities: Makers of similarities by name.
        noise_families: Makers of noise families by name.

    Raises:
        InvMMError: A name or a pipeline class comes twice, an allowed plugin is not installed, or, where strict, a
            plugin is broken.
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
        self._parts: dict[str, dict[str, Any]] = {hook: {} for hook in _GIVES}
        self.backbones: Mapping[str, BackboneEntry] = MappingProxyType(self._parts["register_backbones"])
        self.similarities: Mapping[str, SimilarityMaker] = MappingProxyType(self._parts["register_similarities"])
        self.noise_families: Mapping[str, NoiseFamilyMaker] = MappingProxyType(self._parts["register_noise_families"])
        self._owners: dict[str, _Source] = {}
        self._packages: dict[str, str] = {}

        self._add(_Source("builtin", "invmm-eval", metadata.version("invmm-eval")), lambda: builtin, strict=True)
        points = sorted(metadata.entry_points(group="invmm_eval")) if entry_points else []
        if missing := sorted(set(allow or ()).difference(point.name for point in points)):
            there = ", ".join(point.name for point in points) or "none"
            raise InvMMError(
                f"The plugin {missing[0]!r} that INVMM_EVAL_PLUGINS allows is not installed; there are: {there}."
            )
        for point in points:
            if point.name not in block and (allow is None or point.name in allow):
                assert point.dist is not None
                self._packages[point.name] = _package(point.module)
                self._add(_Source(point.name, point.dist.name, point.dist.version), point.load, strict=strict)

    def register(self, plugin: object, name: str | None = None) -> None:
        """Add a module, a class or an instance with hook implementations, as a test or a notebook does.

        Raises:
            InvMMError: It is broken, or brings a name that is taken; nothing of it is added.
        """
        own_name = getattr(plugin, "__name__", type(plugin).__name__)
        self._add(_Source(name or own_name, None, None), lambda: plugin, strict=True)

    def backbone(self, name: str) -> BackboneEntry:
        """The backbone of this name; an :class:`InvMMError` lists what there is."""
        return _find("backbone", name, self.backbones)

    def similarity(self, name: str) -> SimilarityMaker:
        """The similarity of this name; an :class:`InvMMError` lists what there is."""
        return _find("similarity", name, self.similarities)

    def noise_family(self, name: str) -> NoiseFamilyMaker:
        """The noise family of this name; an :class:`InvMMError` lists what there is."""
        return _find("noise family", name, self.noise_families)

    def backbone_for(self, pipeline_class: str) -> BackboneEntry:
        """The backbone that serves the diffusers pipelines of this ``_class_name``.

        Raises:
            InvMMError: There is none.
        """
        serving = {served: entry for entry in self.backbones.values() for served in entry.pipelines}
        if pipeline_class not in serving:
            raise InvMMError(
                f"No backbone serves the pipeline class {pipeline_class}; install a plugin that does, or take one of: "
                f"{', '.join(sorted(serving))}."
            )
        return serving[pipeline_class]

    def versions(self, backbone: object, similarity: str, noise: str) -> dict[str, str]:
        """The distributions that give these parts, with their versions.

        Args:
            backbone: Belongs to the plugin whose package its class is of.
            similarity: The registered name.
            noise: The registered name.
        """
        package = _package(type(backbone).__module__)
        return {
            plugin.distribution: plugin.version
            for plugin in self.plugins
            if plugin.distribution and plugin.version
            if package == self._packages.get(plugin.name)
            or similarity in plugin.gives["similarities"]
            or noise in plugin.gives["noise_families"]
        }

    def _add(self, source: _Source, load: Callable[[], object], *, strict: bool) -> None:
        try:
            given = _ask(load(), source)
        except Exception as error:
            broken = BrokenPlugin(**asdict(source), cause=_cause(error))
            if strict:
                raise InvMMError(f"{broken}; mend it ({_LEAVE_OUT}).") from error
            _log.warning("%s; it is left out.", broken)
            self.broken += (broken,)
            return
        owners = dict(self._owners)
        for claim in _claims(source, given):
            if claim in owners:
                raise InvMMError(
                    f"The {claim} comes twice, from {owners[claim]} and from {source}; keep one of them ({_LEAVE_OUT})."
                )
            owners[claim] = source
        self._owners = owners
        for hook, parts in given.items():
            self._parts[hook].update(parts)
        gives = {hook.removeprefix("register_"): tuple(given.get(hook, ())) for hook in _GIVES}
        self.plugins += (Plugin(**asdict(source), hooks=tuple(given), gives=gives),)


@cache
def host() -> Host:
    """The host of this process, made on first use.

    ``INVMM_EVAL_PLUGINS`` names the entry points to load, with commas between; ``no:NAME`` leaves one out, and a list
    of only such items loads all others. ``INVMM_EVAL_STRICT=1`` makes a broken plugin an error.
    """
    items = [item.strip() for item in os.environ.get("INVMM_EVAL_PLUGINS", "").split(",") if item.strip()]
    block = {item.removeprefix("no:") for item in items if item.startswith("no:")}
    allow = {item for item in items if not item.startswith("no:")}
    return Host(allow=allow or None, block=block, strict=os.environ.get("INVMM_EVAL_STRICT", "0") not in ("", "0"))


def _ask(plugin: object, source: _Source) -> dict[str, Mapping[str, Any]]:
    """What each hook of a plugin gives.

    The plugin has a manager of its own: one shared by all would neither tell who gave what nor whose hook is misspelt.
    """
    stated = getattr(plugin, "invmm_eval_api", API_VERSION)
    if stated != API_VERSION:
        older = "invmm-eval" if stated > API_VERSION else source.distribution or "the plugin"
        raise InvMMError(f"it is written for version {stated} of the hooks, not {API_VERSION}; upgrade {older}")
    manager = pluggy.PluginManager("invmm_eval")
    manager.add_hookspecs(hookspecs)
    manager.register(plugin)
    manager.check_pending()
    callers = manager.get_hookcallers(plugin)
    if not callers:
        raise InvMMError("it implements no hook; a hook is marked with invmm_eval.hookimpl")
    given = {}
    for caller in callers:
        [parts] = caller() or [None]
        if not isinstance(parts, Mapping):
            raise InvMMError(f"{caller.name} returned a {type(parts).__name__}, not a mapping")
        backbones = caller.name == "register_backbones"
        for name, part in parts.items():
            if not (isinstance(part, BackboneEntry) if backbones else callable(part)):
                wanted = "BackboneEntry" if backbones else "maker"
                raise InvMMError(f"{caller.name} gives {name!r} as a {type(part).__name__}, not as a {wanted}")
        given[caller.name] = parts
    return given


def _claims(source: _Source, given: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """All that only one plugin may bring, in words."""
    names = [f"{_GIVES[hook]} {name!r}" for hook, parts in given.items() for name in parts]
    served = [f"pipeline class {p}" for entry in given.get("register_backbones", {}).values() for p in entry.pipelines]
    return [f"plugin {source.name!r}", *names, *served]


def _package(module: str) -> str:
    return module.partition(".")[0]


def _cause(error: Exception) -> str:
    told = str(error) if isinstance(error, InvMMError) else f"{type(error).__name__}: {error}"
    return textwrap.shorten(told, 300, placeholder=" ...").rstrip(".: ")


def _find(what: str, name: str, parts: Mapping[str, T]) -> T:
    if name not in parts:
        close = "".join(f" (did you mean {match!r}?)" for match in get_close_matches(name, parts, n=1))
        raise InvMMError(f"There is no {what} {name!r}{close}; there are: {', '.join(sorted(parts))}.")
    return parts[name]
