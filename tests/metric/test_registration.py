"""Where evaluate finds the metric: by its bare name after ``register``, and by its path."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import evaluate
import pytest
from evaluate.loading import CachedEvaluationModuleFactory

from invmm_eval import metric_path
from invmm_eval.errors import InvMMError
from invmm_eval.metric.registration import register, unregister
from tests.helpers.command import python
from tests.helpers.hub import Hub, Repository

PATH = [place for place in sys.path if place != str(evaluate.config.HF_MODULES_CACHE)]
"""Where modules are, without those of a cache of evaluate, which it adds to ``sys.path`` when it first loads one."""

COMPUTE = """
import json, socket, sys
asked = []
socket.getaddrinfo = lambda host, *rest, **more: asked.append(host)
socket.socket.connect = lambda self, address: asked.append(address)
import evaluate, numpy

model, path = sys.argv[1:]
settings = {"max_steps": 2, "check_every": 1, "draws": 2, "sampler_steps": 2, "check_images": 2, "plain": 8}
by_name = evaluate.load("invmm")
evaluate.config.HF_EVALUATE_OFFLINE = False
by_path = evaluate.load(path)
found = [metric.compute(references=[numpy.eye(8)], model=model, settings=settings) for metric in (by_name, by_path)]
print(json.dumps([asked, type(by_name).__module__, type(by_path).__module__, found]))
"""

LOAD = """
import sys, evaluate
for name in sys.argv[1:]:
    try:
        print(type(evaluate.load(name)).__module__)
    except FileNotFoundError as error:
        print(error)
"""


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    """With one Space, that of the metric."""
    space = Repository({"invmm.py": b"from invmm_eval.metric.invmm import InvMM as InvMM\n"})
    with Hub({"spaces/org/invmm": space}) as serving:
        yield serving


@pytest.fixture(scope="module")
def home(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a user who registered the metric, and who loaded the Space's once."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate.config, "HF_MODULES_CACHE", folder / "modules")
        register()
    environment = hub.environment(folder) | {"HF_UPDATE_DOWNLOAD_COUNTS": "0"}
    assert printed(LOAD, "org/invmm", "invmm", **environment).split() == ["invmm_eval.metric.invmm"] * 2
    return environment


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where evaluate keeps versions of the metric, in a cache of this test alone."""
    modules = tmp_path / "modules"
    monkeypatch.setattr(evaluate.config, "HF_MODULES_CACHE", modules)
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", tmp_path / "metrics")
    monkeypatch.setattr(evaluate.config, "HF_EVALUATE_OFFLINE", True)
    monkeypatch.setattr(sys, "path", list(PATH))
    forget()
    yield modules / "evaluate_modules" / "metrics" / "evaluate-metric--invmm"
    forget()


def forget() -> None:
    """Forget what was loaded from another cache of evaluate."""
    for name in [name for name in sys.modules if name.startswith("evaluate_modules")]:
        del sys.modules[name]


def printed(code: str, *arguments: str, **environment: str) -> str:
    """What a fresh process prints."""
    failed, out, err = python(code, *arguments, path=PATH, **environment)
    assert not failed, err
    return out


def cached() -> str:
    """The version of the metric that evaluate takes when the Hub gives it none."""
    return str(CachedEvaluationModuleFactory("evaluate-metric--invmm").get_module().hash)


def test_a_fresh_process_finds_it_by_its_bare_name_and_by_its_path(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    monkeypatch.setattr(evaluate.config, "HF_MODULES_CACHE", home / "modules")
    register()
    offline = {"HF_HOME": str(home), "HF_EVALUATE_OFFLINE": "1", "HF_HUB_OFFLINE": "1"}
    told = printed(COMPUTE, str(tiny_folder), metric_path(), **offline).splitlines()[-1]
    asked, by_name, by_path, found = json.loads(told)
    assert asked == [], "nothing outside is asked; by its path not even where evaluate is not told to be offline"
    assert by_name == "invmm_eval.metric.invmm"
    assert by_path.startswith("evaluate_modules.metrics.invmm."), "evaluate runs a copy"
    assert found[0]["status"] == ["exhausted"]
    assert found[0] == found[1]


def test_a_hub_that_refuses_is_no_obstacle(hub: Hub, home: dict[str, str]) -> None:
    hub.refusals["/"] = 500
    told = printed(LOAD, "invmm", "org/invmm", "org/unknown", **home).splitlines()
    assert told[:2] == ["invmm_eval.metric.invmm"] * 2
    assert "'org/unknown' doesn't exist on the Hugging Face Hub" in told[2]


def test_offline_a_hub_that_hangs_is_not_asked(hub: Hub, home: dict[str, str]) -> None:
    hub.requests.clear()
    hub.refusals["/"] = "hang"
    offline = {**home, "HF_EVALUATE_OFFLINE": "1"}
    assert printed(LOAD, "invmm", "org/invmm", **offline).split() == ["invmm_eval.metric.invmm"] * 2
    assert hub.requests == []


def test_unregister_takes_it_away(cache: Path) -> None:
    place = register()
    assert evaluate.load("invmm").name == "invmm"
    assert unregister() == place
    assert not cache.exists()
    with pytest.raises(FileNotFoundError):
        evaluate.load("invmm")
    assert unregister() is None


def test_registering_twice_is_registering_once(cache: Path) -> None:
    assert register() == register()
    assert [len(folder.name) for folder in cache.iterdir()] == [64]


def test_registering_again_comes_before_other_versions_which_are_left_alone(cache: Path) -> None:
    place = register()
    other = cache / ("0" * 64) / "invmm.py"
    other.parent.mkdir()
    other.write_text("class Other: ...")
    os.utime(place, (1, 1))
    assert cached() == other.parent.name
    register()
    assert cached() == place.parent.name
    unregister()
    assert not place.exists()
    assert cached() == other.parent.name
    assert other.read_text() == "class Other: ..."


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(evaluate.config, "HF_MODULES_CACHE", tmp_path / "file")
    with pytest.raises(InvMMError, match="HF_HOME"):
        register()


def test_the_path_is_told_without_heavy_imports() -> None:
    told: dict[str, Any] = json.loads(
        printed(
            "import json, sys, invmm_eval; path = invmm_eval.metric_path();"
            "print(json.dumps({'path': path, 'heavy': sorted({'torch', 'evaluate', 'datasets'} & set(sys.modules))}))",
        )
    )
    assert told == {"path": metric_path(), "heavy": []}
    assert Path(metric_path()).name == "invmm.py"
