"""How often a search waits for the device: counted on a pretend accelerator, never timed."""

from typing import Any

import pytest

from tests.helpers.accelerator import AVAILABLE, measured

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="this PyTorch lets Python define no device")

WAITING = (
    *("item", "float", "bool", "tolist", "cpu", "nonzero", "mask", "scalar index", "list index", "tensor of a list"),
    *("copy of ordinary memory", "copy that may not wait, of ordinary memory"),
    "copy that waits, of page-locked memory",
)
QUEUED = ("copy of page-locked memory", "index on the device", "take", "arithmetic", "slice")
GUIDED = {"guidance": [1.0, 3.0]}
ONE_SHOT = {"optimizer": "one-shot", "first_dose": 2.0, "times": "informative", "reject": 0.5}
SEARCHES: dict[str, tuple[str, list[Any], dict[str, Any]]] = {
    "pixel": ("search", ["pixel"], {}),
    "pixel, more sampler steps": ("search", ["pixel"], {"sampler_steps": 9}),
    "pixel, second order": ("search", ["pixel"], {"sampler": "dpm-solver++"}),
    "pixel, by dose": ("search", ["pixel"], {"optimizer": "dose", "first_dose": 2.0}),
    "pixel, images together": ("search", ["pixel"], {"micro_batch": 8}),
    "pixel, five images together": ("search", ["pixel"], {"micro_batch": 20, "images": 5}),
    "pixel, giving samples up": ("search", ["pixel"], ONE_SHOT),
    "pixel, giving up samples of five": ("search", ["pixel"], {**ONE_SHOT, "micro_batch": 20, "images": 5}),
    "guided": ("search", ["guided"], GUIDED),
    "few steps": ("search", ["few steps"], {"sampler": "own"}),
}
ALONE, TOGETHER, GIVING_UP = 5, 3, 7
"""Waits of a check of two images: one for the losses of both and where on a ray their noises lie, and two, for
similarities and pixels, for each round of samples, which two images have in common if they are checked together; one
more for each to give samples up, or to seed the noise that is added on the way."""
BY_SEARCH = {
    "pixel, images together": TOGETHER,
    "pixel, five images together": TOGETHER,
    "pixel, giving samples up": GIVING_UP,
    "pixel, giving up samples of five": TOGETHER + 1,
    "few steps": ALONE + 2,
}


@pytest.fixture(scope="module")
def counted() -> dict[str, Any]:
    requests: dict[str, tuple[str, list[Any], dict[str, Any]]] = {
        "probes": ("probes", [], {}),
        **SEARCHES,
        "pixel on the CPU": ("search", ["pixel"], {"on_device": False}),
        **{f"sampling {steps}": ("sampling", [steps, False], {}) for steps in (2, 5)},
        **{f"rejecting {steps}": ("sampling", [steps, True], {}) for steps in (2, 5)},
        "conformance": ("conforms", [], {}),
    }
    return measured(requests)


def test_the_pretend_device_counts_waits_and_not_what_is_queued(counted: dict[str, Any]) -> None:
    assert counted["probes"] == {**dict.fromkeys(WAITING, 1), **dict.fromkeys(QUEUED, 0)}


def test_values_are_those_of_the_cpu_to_rounding(counted: dict[str, Any]) -> None:
    for found, expected in zip(counted["pixel"]["found"], counted["pixel on the CPU"]["found"], strict=True):
        assert found[:2] == expected[:2] == ["exhausted", None]
        assert [number for point in found[2] for number in point] == [
            pytest.approx(number, rel=1e-3, abs=1e-6) for point in expected[2] for number in point
        ]


@pytest.mark.parametrize("search", SEARCHES)
def test_no_step_waits(search: str, counted: dict[str, Any]) -> None:
    _, second, third, _, fifth, sixth, _ = counted[search]["waits"]
    assert [second, third, fifth, sixth] == [0] * 4


@pytest.mark.parametrize("search", SEARCHES)
def test_a_check_waits_as_often_however_many_steps_its_sampler_takes(search: str, counted: dict[str, Any]) -> None:
    _, _, _, check, *_ = counted[search]["waits"]
    assert check == BY_SEARCH.get(search, ALONE)


@pytest.mark.parametrize("steps", [2, 5])
def test_the_sampler_waits_only_to_give_rows_up(steps: int, counted: dict[str, Any]) -> None:
    assert counted[f"sampling {steps}"] == 0
    assert counted[f"rejecting {steps}"] == 1


def test_the_conformance_kit_checks_a_backbone_on_the_device(counted: dict[str, Any]) -> None:
    assert counted["conformance"]
