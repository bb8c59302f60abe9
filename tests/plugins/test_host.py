"""The host, tested with distributions that are written into a temporary folder as an installer would."""

import logging
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from invmm_eval.cli.app import app
from invmm_eval.errors import InvMMError
from invmm_eval.plugins import hooks as hookspecs
from invmm_eval.plugins.builtin import COMMANDS
from invmm_eval.plugins.hooks import BackboneEntry, hookimpl, lazy
from invmm_eval.plugins.host import Host, host
from tests.helpers import command

Install = Callable[..., str]

GOOD = """
    from invmm_eval.plugin import BackboneEntry, hookimpl, lazy

    @hookimpl
    def register_backbones():
        return {"toy": BackboneEntry(lazy("builtins:dict"), ("ToyPipeline",))}

    @hookimpl
    def register_similarities():
        return {"colour": lazy("builtins:dict"), "shape": lazy("builtins:list")}
"""


def gives(hook: str, mapping: str, before: str = "") -> str:
    return f"""
    from invmm_eval.plugin import BackboneEntry, CommandEntry, hookimpl, lazy
    {before}

    @hookimpl
    def {hook}():
        return {mapping}
    """


NOTHING: dict[str, tuple[str, ...]] = {"commands": ()}
"""Kinds of which there is no built-in part."""

BROKEN = {
    "exits": ("import sys\nsys.exit('no GPU found')", "SystemExit: no GPU found"),
    "raises no exception": ("raise BaseException('odd')", "BaseException: odd"),
    "import": ("import a_library_that_is_not_there", "ModuleNotFoundError: .*a_library_that_is_not_there"),
    "syntax": ("def :", "SyntaxError"),
    "misspelt": (gives("register_backbone", "{}"), "no hook 'register_backbone' .did you mean 'register_backbones'"),
    "argument": (
        gives("register_backbones", "{}").replace("():", "(model):"),
        "takes the arguments model; a hook takes none",
    ),
    "raises": (gives("register_noise_families", "1 / 0"), "ZeroDivisionError: division by zero"),
    "lines": (
        gives("register_noise_families", "(_ for _ in ()).throw(ValueError('one\\ntwo'))"),
        "ValueError: one two$",
    ),
    "list": (gives("register_noise_families", "['student']"), "register_noise_families returned a list"),
    "nothing": (gives("register_similarities", "None"), "register_similarities returned a NoneType"),
    "entry": (
        gives("register_backbones", "{'toy': dict}"),
        "register_backbones maps 'toy' to the class dict, not to a BackboneEntry",
    ),
    "maker": (
        gives("register_similarities", "{'toy': 3}"),
        "register_similarities maps 'toy' to a int, not to a maker",
    ),
    "make": (gives("register_backbones", "{'toy': BackboneEntry('toy:Net')}"), "make is 'toy:Net'; give what loads"),
    "lazy": (gives("register_similarities", "{'toy': lazy('toy')}"), "is 'package.module:name', not 'toy'"),
    "name": (gives("register_similarities", "{3: dict}"), "has the name 3; make it a text"),
    "text": (gives("register_backbones", "{}", "invmm_eval_api = '1'"), "invmm_eval_api is '1'; make it the number 1"),
    "command": (gives("register_commands", "{'toy': print}"), "register_commands maps .* not to a CommandEntry"),
    "target": (gives("register_commands", "{'toy': CommandEntry('toy', '')}"), "target is 'package.module:name'"),
    "words": (gives("register_commands", "{'a toy': CommandEntry('toy:run', '')}"), "has the name 'a toy'"),
    "unmarked": ("def register_backbones(): return {}", "implements no hook.*hookimpl"),
    "newer": (gives("register_backbones", "{}", "invmm_eval_api = 99"), "version 99 .* not 1; upgrade invmm-eval$"),
    "older": (gives("register_backbones", "{}", "invmm_eval_api = 0"), "version 0 .* not 1; upgrade faulty$"),
}


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Writes a distribution whose one module is a plugin; returns the name of the module."""
    monkeypatch.syspath_prepend(tmp_path)
    modules = []

    def write(distribution: str, source: str, entry_point: str | None = None) -> str:
        modules.append(command.install(tmp_path, distribution, source, entry_point))
        return modules[-1]

    yield write
    for module in modules:
        sys.modules.pop(module, None)


@pytest.fixture
def fresh_host(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("INVMM_EVAL_PLUGINS", raising=False)
    monkeypatch.delenv("INVMM_EVAL_STRICT", raising=False)
    host.cache_clear()
    yield
    host.cache_clear()


def test_what_a_plugin_prints_while_it_loads_is_no_output_of_a_command(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install("chatty", "print('hello')\n" + textwrap.dedent(GOOD))
    assert "chatty" in [plugin.name for plugin in Host().plugins]
    assert capsys.readouterr() == ("", "hello\n")


def names(of: Host) -> set[str]:
    return {plugin.name for plugin in of.plugins}


def hooks_of(module: object) -> set[str]:
    return {name for name, value in vars(module).items() if hasattr(value, "invmm_eval_spec")}


def test_every_hook_is_implemented_by_a_built_in_plugin() -> None:
    assert hooks_of(hookspecs)
    [builtin] = Host(entry_points=False).plugins
    assert (builtin.distribution, builtin.version) == ("invmm-eval", version("invmm-eval"))
    assert set(builtin.hooks) == hooks_of(hookspecs) - {f"register_{kind}" for kind in NOTHING}


def test_an_installed_plugin_is_found_and_described(install: Install) -> None:
    install("toy-models", GOOD)
    found = Host(strict=True)
    [plugin] = [plugin for plugin in found.plugins if plugin.name == "toy-models"]
    assert (plugin.distribution, plugin.version) == ("toy-models", "1.5")
    assert set(plugin.hooks) == {"register_backbones", "register_similarities"}
    assert plugin.gives == {
        "backbones": ("toy",),
        "similarities": ("colour", "shape"),
        "noise_families": (),
        "estimators": (),
        "detectors": (),
        **NOTHING,
    }
    assert found.backbone("toy") is found.backbone_for("ToyPipeline") is found.backbones["toy"]
    assert found.similarity("shape") is found.similarities["shape"]
    assert found.backbone_for("DDPMPipeline") is found.backbone("ddpm")


def test_a_plugin_written_for_version_0_1_still_loads(install: Install) -> None:
    install("toy-models", GOOD.replace("invmm_eval.plugin", "invmm_eval"))
    with pytest.warns(DeprecationWarning, match=r"Import hookimpl from invmm_eval\.plugin"):
        assert "toy" in Host(strict=True).backbones


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_plugin_is_reported_and_skipped_or_where_strict_an_error(
    fault: str, install: Install, caplog: pytest.LogCaptureFixture
) -> None:
    source, cause = BROKEN[fault]
    install("faulty", source, entry_point="a-faulty-one")
    install("toy-models", GOOD)
    with caplog.at_level(logging.WARNING):
        found = Host()
    assert "toy" in found.backbones
    assert "a-faulty-one" not in names(found)

    [broken] = found.broken
    assert (broken.name, broken.distribution, broken.version) == ("a-faulty-one", "faulty", "1.5")
    assert "\n" not in broken.cause
    assert re.search(cause, broken.cause)

    [record] = caplog.records
    for part in ("'a-faulty-one'", "faulty 1.5", f"invmm-eval {version('invmm-eval')}", broken.cause, "skipped"):
        assert part in record.getMessage()
    with pytest.raises(InvMMError, match=r"faulty 1\.5.*no:NAME"):
        Host(strict=True)


@pytest.mark.parametrize(
    ("hook", "first", "second", "what"),
    [
        ("register_noise_families", "{'student': dict}", "{'student': list}", "noise family 'student'"),
        ("register_commands", "{'toy': CommandEntry('a:b', '')}", "{'toy': CommandEntry('c:d', '')}", "command 'toy'"),
        (
            "register_backbones",
            "{'toy': BackboneEntry(dict)}",
            "{'toy': BackboneEntry(dict, ('ToyPipeline',))}",
            "backbone 'toy'",
        ),
        (
            "register_backbones",
            "{'toy': BackboneEntry(dict, ('ToyPipeline',))}",
            "{'other': BackboneEntry(dict, ('OtherPipeline', 'ToyPipeline'))}",
            "pipeline class ToyPipeline",
        ),
    ],
)
def test_a_name_registered_twice_is_an_error_that_names_both(
    hook: str, first: str, second: str, what: str, install: Install
) -> None:
    install("one-toy", gives(hook, first))
    install("two-toy", gives(hook, second))
    with pytest.raises(InvMMError, match=rf"{what}.*one-toy 1\.5.*two-toy 1\.5"):
        Host()
    assert "one-toy" in names(Host(block=["two-toy"]))


@pytest.mark.parametrize(
    ("hook", "mapping", "name"),
    [
        ("register_similarities", "{'ssim': dict}", "ssim"),
        ("register_commands", "{'new-plugin': CommandEntry('a:b', '')}", "new-plugin"),
    ],
)
def test_a_built_in_name_cannot_be_taken(hook: str, mapping: str, name: str, install: Install) -> None:
    install("better", gives(hook, mapping))
    with pytest.raises(InvMMError, match=rf"'{name}'.*invmm-eval .*better 1\.5"):
        Host()


def test_the_names_of_all_built_in_commands_are_kept() -> None:
    names = {each.name or each.callback.__name__ for each in app.registered_commands if each.callback}
    assert names == set(COMMANDS)


def test_an_allowed_plugin_that_is_not_installed_is_an_error(install: Install) -> None:
    install("toy-models", GOOD)
    with pytest.raises(InvMMError, match=r"'toy-model'.*not installed.*toy-models"):
        Host(allow=["toy-model"])


CHOSEN = {"toy-models", "noises"}


@pytest.mark.usefixtures("fresh_host")
@pytest.mark.parametrize(
    ("listed", "loaded"),
    [
        ("", {"toy-models", "noises"}),
        ("noises", {"noises"}),
        (" noises , toy-models ", {"noises", "toy-models"}),
        ("no:noises", {"toy-models"}),
        ("no:noises,no:toy-models,no:never-heard-of", set()),
        ("noises,no:toy-models", {"noises"}),
        ("noises,toy-models,no:noises", {"toy-models"}),
    ],
)
def test_the_environment_chooses_plugins(
    listed: str, loaded: set[str], install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = {name: install(name, gives("register_noise_families", f"{{'{name}': dict}}")) for name in CHOSEN}
    monkeypatch.setenv("INVMM_EVAL_PLUGINS", listed)
    assert names(host()) & CHOSEN == loaded
    assert {name for name, module in modules.items() if module in sys.modules} == loaded, "others are not imported"
    assert host() is host()


@pytest.mark.usefixtures("fresh_host")
def test_the_environment_makes_the_host_strict(
    install: Install, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    install("faulty", BROKEN["raises"][0])
    for lenient in ("", "0"):
        monkeypatch.setenv("INVMM_EVAL_STRICT", lenient)
        host.cache_clear()
        assert [broken.name for broken in host().broken] == ["faulty"]
        host()
    assert len(caplog.records) == 2, "one warning for each host"
    monkeypatch.setenv("INVMM_EVAL_STRICT", "1")
    host.cache_clear()
    with pytest.raises(InvMMError, match="ZeroDivisionError"):
        host()


@pytest.mark.parametrize(
    ("look_up", "what", "near", "right"),
    [
        (Host.backbone, "backbone", "dppm", "ddpm"),
        (Host.similarity, "similarity", "sccd", "sscd"),
        (Host.noise_family, "noise family", "diagonal", "diagonal-gaussian"),
        (Host.estimator, "estimator", "confirm", "confirmation"),
        (Host.detector, "detector", "sharp", "sharpness"),
    ],
)
def test_an_unknown_name_is_an_error_that_lists_the_known_ones(
    look_up: Callable[[Host, str], object], what: str, near: str, right: str
) -> None:
    found = Host(entry_points=False)
    assert look_up(found, right)
    with pytest.raises(InvMMError, match=f"no {what} '{near}'.*did you mean '{right}'.*known names: .*{right}"):
        look_up(found, near)
    with pytest.raises(InvMMError, match=f"no {what} 'qqq'; known names: .*{right}"):
        look_up(found, "qqq")


def test_a_pipeline_class_that_no_backbone_names_goes_to_the_one_that_takes_any() -> None:
    found = Host(entry_points=False)
    assert found.backbone_for("VideoPipeline") is found.backbone("diffusers")


class Mine:
    """An object that a test or a notebook registers."""

    @hookimpl
    def register_backbones(self) -> dict[str, BackboneEntry]:
        return {"mine": BackboneEntry(lazy("builtins:dict"), ("MyPipeline",))}


class StillMine:
    @staticmethod
    @hookimpl
    def register_noise_families() -> dict[str, object]:
        return {"mine": lazy("builtins:dict")}


class AlsoMine(StillMine):
    @staticmethod
    @hookimpl
    def register_similarities() -> dict[str, object]:
        return {"ssim": lazy("builtins:dict")}


class Misspelt:
    @hookimpl
    def register_noise_family(self) -> dict[str, object]:
        return {}


def test_an_object_is_registered_by_hand() -> None:
    found = Host(entry_points=False)
    found.register(Mine())
    assert found.backbone_for("MyPipeline") is found.backbone("mine")
    [_, plugin] = found.plugins
    assert (plugin.name, plugin.distribution, plugin.version) == ("Mine", None, None)
    assert plugin.hooks == ("register_backbones",)


def test_a_class_is_registered_by_hand_whole_or_not_at_all() -> None:
    found = Host(entry_points=False)
    with pytest.raises(InvMMError, match=r"'ssim'.*invmm-eval.*'also'"):
        found.register(AlsoMine, name="also")
    assert "mine" not in found.noise_families
    assert names(found) == {"builtin"}

    found.register(StillMine, name="also")
    assert "mine" in found.noise_families
    assert names(found) == {"builtin", "also"}


def test_a_broken_object_is_an_error_even_where_lenient() -> None:
    found = Host(entry_points=False)
    with pytest.raises(InvMMError, match=r"'Misspelt'.*no hook 'register_noise_family'"):
        found.register(Misspelt())
    assert found.broken == ()
    found.register(Mine())
    with pytest.raises(InvMMError, match="plugin 'Mine' is registered twice"):
        found.register(Mine())


def test_the_versions_of_the_plugins_that_provide_parts(install: Install) -> None:
    backbone = """
        from invmm_eval.plugin import BackboneEntry, hookimpl

        class Network:
            pass

        @hookimpl
        def register_backbones():
            return {"network": BackboneEntry(lambda model, **_: Network())}
    """
    install("far-away", backbone)
    install("near-by", GOOD)
    install("sums", gives("register_estimators", "{'half': dict, 'third': dict}"))
    found = Host()
    network = found.backbone("network").make("model", revision=None, device=None, dtype=None)  # type: ignore[arg-type]
    assert found.versions(network, "sscd", "diagonal-gaussian") == {
        "invmm-eval": version("invmm-eval"),
        "far-away": "1.5",
    }
    assert "near-by" in found.versions(object(), "colour", "diagonal-gaussian")
    assert "sums" in found.versions(object(), "sscd", "diagonal-gaussian", ["third"])
    assert "far-away" not in found.versions(object(), "colour", "diagonal-gaussian")
