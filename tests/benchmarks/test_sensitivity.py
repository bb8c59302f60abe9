"""The script that measures elasticities: by hand, on a model that is known, and from end to end."""

import json
import math
from pathlib import Path

import pytest

from benchmarks import sensitivity
from benchmarks.sensitivity import Audits, Change, Values, changes, elastic, elasticity, ratio
from invmm_eval.audits.images import Source
from invmm_eval.recipe import DEMO
from tests.audits.test_plan import SHORT
from tests.helpers.command import SET
from tests.helpers.exact import Mixture, pictures


@pytest.mark.parametrize(
    ("invmm", "expected"),
    [
        ((1.0, 2.0, 4.0), 1.0),
        ((4.0, 1.0, 1.0), -1.0),
        ((3.0, 3.0, 3.0), 0.0),
        ((math.inf, 1.0, 8.0), 3.0),
        ((1.0, 0.5, math.inf), -1.0),
        ((math.inf, 1.0, math.inf), None),
    ],
)
def test_an_elasticity_by_hand(invmm: tuple[float, ...], expected: float | None) -> None:
    assert elasticity([5, 10, 20], invmm) == (expected if expected is None else pytest.approx(expected))


def test_rows_by_hand() -> None:
    runs = [Values(5, [1.0, 2.0, math.inf], [math.inf]), Values(10, [1.0, 4.0, 1.0], [0.3])]
    row = elastic("draws", runs)
    assert (row["elasticity"], row["least"], row["most"]) == pytest.approx((0.5, 0, 1))
    assert [(run["replicated"], run["false"]) for run in row["runs"]] == [(2, 0), (3, 1)]
    assert json.loads(json.dumps(row)) == row
    row = ratio("noise", *runs)
    assert (row["ratio"], row["least"], row["most"]) == pytest.approx((1.5, 1, 2))


def test_every_setting_is_halved_and_doubled() -> None:
    found = {less.setting: (less.value, value, more.value) for less, value, more in changes(DEMO, 0.9, {"side": 64})}
    assert set(found) == {*sensitivity.SETTINGS, "1 - threshold", "side"}
    assert found["check_every"] == (13, 25, 50)
    assert found["xi"] == (5e-4, 1e-3, 2e-3)
    assert found["1 - threshold"] == pytest.approx((0.05, 0.1, 0.2))
    assert found["side"] == (32, 64, 128)
    for less, _, more in changes(DEMO, 0.9, {}):
        for change in (less, more):
            assert DEMO.changed(**change.choices["settings"]) != DEMO


def test_runs_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = Mixture(pictures(3))
    memorized = [Source(str(index), image) for index, image in enumerate(pictures(2))]
    unseen = [Source("unseen", pictures(1, seed=99)[0])]
    audits = Audits("exact", backbone, memorized, unseen, {"settings": SHORT}, 2, tmp_path)
    change = Change("check_every", 10, {"settings": {"check_every": 10}})
    found = audits.run(change)
    assert (len(found.memorized), len(found.held_out)) == (4, 2)
    assert all(map(math.isfinite, found.memorized))
    assert all(map(math.isinf, found.held_out))
    monkeypatch.setattr(backbone, "predict_x0", None)
    assert audits.run(change) == found


def test_the_script(tiny_folder: Path, images: Path, tmp_path: Path) -> None:
    written = tmp_path / "sensitivity.json"
    files = ("--memorized", str(images / "a.png"), "--held-out", str(images / "b.png"))
    sensitivity.main(
        ["--model", str(tiny_folder), *files, *SET, "--runs", str(tmp_path / "runs"), "--json", str(written)]
    )
    found = json.loads(written.read_text())
    assert (found["memorized"], found["held_out"]) == (1, 1)
    named = ["seed", "noise", *sensitivity.SETTINGS, "1 - threshold"]
    assert [row["setting"] for row in found["rows"]] == named
    assert {run["replicated"] for row in found["rows"] for run in row["runs"]} == {0}


def test_some_rows_alone(
    tiny_folder: Path,
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    written = tmp_path / "sensitivity.json"
    files = ("--memorized", str(images / "a.png"), "--held-out", str(images / "b.png"))
    arguments = ["--model", str(tiny_folder), *files, *SET, "--runs", str(tmp_path / "runs"), "--json", str(written)]
    sensitivity.main([*arguments, "--only", "xi", "seed"])
    assert [row["setting"] for row in json.loads(written.read_text())["rows"]] == ["seed", "xi"]
    with pytest.raises(SystemExit):
        sensitivity.main([*arguments, "--only", "side"])
    assert "there is no row side; there are seed, noise, max_steps" in capsys.readouterr().err
