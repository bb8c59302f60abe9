"""The commands about plugins, and the registration of the metric."""

import json
from importlib.metadata import version
from pathlib import Path

from tests.helpers.command import MAIN, python, several


def test_plugins_are_listed_and_a_broken_one_is_reported_once(broken: list[str]) -> None:
    code, out, err = python(MAIN, "plugins", path=broken)
    assert code == 0
    names = ("builtin", "invmm-eval", "ddpm", "sscd", "pixel-cosine", "ssim", "diagonal-gaussian", "isotropic-gaussian")
    assert all(name in out for name in names)
    assert "…" not in python(MAIN, "plugins", path=broken, COLUMNS="50")[1], "names are whole in a narrow terminal"
    assert "faulty" not in out
    assert err.count("'the-faulty' (faulty 1.5) does not work") == 1
    assert "a_library_that_is_not_there" in err
    assert "Traceback" not in err


def test_plugins_as_json(broken: list[str]) -> None:
    code, out, _ = python(MAIN, "plugins", "--json", path=broken)
    assert code == 0
    listing = json.loads(out)
    [builtin] = [plugin for plugin in listing.pop("plugins") if plugin["name"] == "builtin"]
    assert (builtin["distribution"], builtin["version"]) == ("invmm-eval", version("invmm-eval"))
    assert {"register_backbones", "register_similarities", "register_noise_families"} <= set(builtin["hooks"])
    assert builtin["gives"]["similarities"] == ["sscd", "pixel-cosine", "ssim"]
    [told] = listing.pop("broken")
    assert "a_library_that_is_not_there" in told.pop("cause")
    assert told == {"name": "the-faulty", "distribution": "faulty", "version": "1.5"}
    assert not listing


def test_the_metric_is_registered_and_removed(tmp_path: Path) -> None:
    home = tmp_path / "a home whose name is so long that a line of a terminal would not hold it at all"
    told, removed, nothing = several(
        ["register"], ["register", "--remove"], ["register", "--remove"], HF_HOME=str(home)
    )
    registered, hint = told.splitlines()
    place = registered.removeprefix('evaluate.load("invmm") now finds ')
    assert Path(place).is_relative_to(home)
    assert "HF_EVALUATE_OFFLINE=1" in hint
    assert removed == f"Removed {place}.\n"
    assert nothing == "The metric was not registered.\n"
    assert not [path for path in home.rglob("*") if "invmm" in path.name]
