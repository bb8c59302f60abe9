"""The evaluator of mlflow, through mlflow's own call, into a real store: all is read back by mlflow's client."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from datasets import Dataset
from PIL import Image

from invmm_eval.errors import InvMMError
from invmm_eval.reports.card import START
from invmm_eval.reports.findings import find
from invmm_eval.search.fields import columns
from invmm_eval.search.sentence import sentence
from invmm_eval.testing.tiny import SIDE, tiny_stable_diffusion
from tests.helpers.command import TINY, python
from tests.helpers.exact import pictures

mlflow = pytest.importorskip("mlflow", reason="mlflow is an extra: pip install invmm-eval[mlflow]")
pytestmark = pytest.mark.usefixtures("store")

MEMORIZED = pictures(2)
EXACT = {"model": "any", "backbone": "exact", "similarity": "pixel-cosine"}

LIGHT = """
import json, sys
from importlib.metadata import entry_points
import mlflow.models.evaluation.evaluator_registry
before = set(sys.modules)
[point] = entry_points(group="mlflow.model_evaluator", name="invmm")
evaluator = point.load()()
types = [None, "regressor", "text", "diffusion"]
can = [evaluator.can_evaluate(model_type=kind, evaluator_config={"model": "any"}) for kind in types]
ours = {name.partition(".")[0] for name in set(sys.modules) - before}
print(json.dumps([mlflow.models.list_evaluators()[-1], can, sorted(ours), "torch" in sys.modules]))
"""


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Two pictures that the model knows, one that it does not, and a damaged one."""
    paths = [tmp_path / "private-folder" / f"{name}.png" for name in ("first", "second", "unseen", "damaged")]
    paths[0].parent.mkdir()
    for path, image in zip(paths, [*MEMORIZED, *pictures(1, seed=99)], strict=False):
        Image.fromarray(image[0].numpy()).save(path)
    paths[-1].write_bytes(b"no image")
    return [str(path) for path in paths]


def evaluate(data: object, config: dict[str, Any]) -> Any:
    return mlflow.models.evaluate(data=data, model_type="diffusion", evaluators="invmm", evaluator_config=config)


def logged(run_id: str, place: Path) -> dict[str, Path]:
    """Everything the run has, by its path."""
    mlflow.artifacts.download_artifacts(run_id=run_id, dst_path=str(place))
    return {path.relative_to(place).as_posix(): path for path in place.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("exact")
def test_a_run_tells_what_was_found_and_keeps_images_private(files: list[str], tmp_path: Path, store: Path) -> None:
    found = evaluate(pandas.DataFrame({"image": files}), EXACT)
    run = mlflow.MlflowClient().get_run(found.run_id)
    assert run.info.status == "FINISHED"

    table = mlflow.load_table("invmm_table.json", run_ids=[found.run_id])
    assert table.columns.tolist() == [column.name for column in columns("dataset")]
    assert table["status"].tolist() == ["replicated", "replicated", "exhausted", "failed"]
    assert sorted(table["index"]) == [0, 1, 2, 3]
    least, most = sorted(table["invmm"][:2])
    assert 0 < least < most < 1
    assert table["invmm"][2:].isna().all()
    assert table.equals(found.tables["invmm_table.json"])

    assert run.data.metrics == found.metrics
    assert found.metrics == {
        "invmm/images": 4,
        "invmm/memorized": 2,
        "invmm/replicable": 0,
        "invmm/not_replicated": 1,
        "invmm/failed": 1,
        "invmm/memorized_fraction": 2 / 4,
        "invmm/replicated": 2,
        "invmm/replicated_fraction": 2 / 4,
        "invmm/median_invmm": pytest.approx(most),
        "invmm/smallest_invmm": pytest.approx(least),
    }

    artifacts = logged(found.run_id, tmp_path / "logged")
    assert set(artifacts) == {
        "invmm_table.json",
        "invmm/report.html",
        "invmm/config.json",
        "invmm/card/README.md",
        "invmm/card/memorization-audit/distribution.png",
    }
    assert set(found.artifacts) == {name for name in artifacts if not name.endswith("png")}
    assert START in found.artifacts["invmm/card/README.md"].content
    assert "<title>Memorization audit of" in found.artifacts["invmm/report.html"].content
    assert found.artifacts["invmm/config.json"].content["similarity"]["name"] == "pixel-cosine"
    everything = b"".join(path.read_bytes() for path in artifacts.values()) + (store / "mlflow.db").read_bytes()
    assert b"private-folder" not in everything
    assert b"data:image/webp" not in everything


@pytest.mark.usefixtures("exact")
def test_names_and_pictures_are_logged_on_request(files: list[str], tmp_path: Path) -> None:
    out = tmp_path / "audit"
    found = evaluate(pandas.DataFrame({"image": files}), {**EXACT, "out": out, "names": True, "pictures": True})
    artifacts = logged(found.run_id, tmp_path / "logged")
    gallery = mlflow.load_table("invmm_gallery.json", run_ids=[found.run_id])
    findings = find(out)
    assert gallery["name"].tolist() == [result.name for result in findings.results[:3]]
    assert set(gallery["name"]) == set(files[:3])
    assert gallery["finding"].tolist() == [sentence(result) for result in findings.results[:3]]
    for result, shown in zip(findings.results, gallery["pictures"], strict=False):
        with Image.open(artifacts[shown["filepath"]]) as beside, Image.open(findings.picture(result)) as kept:
            sheet = np.asarray(beside)
            assert np.array_equal(sheet, np.asarray(kept))
        image = np.asarray(Image.open(result.name))
        assert np.array_equal(sheet[: len(image), : len(image)], image), "the image stands first"
        assert sheet.shape[1] > 5 * len(image), "and its samples stand beside it"
    assert artifacts["invmm/report.html"].read_text().count("data:image/webp") == 3
    assert len([name for name in artifacts if name.startswith("invmm/card/") and name.endswith("png")]) == 1 + 2
    table = mlflow.load_table("invmm_table.json", run_ids=[found.run_id])
    assert set(table["name"]) == set(files)
    assert "damaged.png" in table["error"][3]


@pytest.mark.usefixtures("exact")
def test_a_value_that_is_not_finite_is_no_metric(files: list[str]) -> None:
    """SQLite would hold infinity as the largest number that there is, which a chart then shows."""
    none_replicated = evaluate(files[2:], EXACT)
    assert none_replicated.metrics == {
        "invmm/images": 2,
        "invmm/memorized": 0,
        "invmm/replicable": 0,
        "invmm/not_replicated": 1,
        "invmm/failed": 1,
        "invmm/memorized_fraction": 0,
        "invmm/replicated": 0,
        "invmm/replicated_fraction": 0,
    }
    all_failed = evaluate(files[3:], EXACT)
    counts = {"images": 1, "memorized": 0, "replicable": 0, "not_replicated": 0, "failed": 1, "replicated": 0}
    assert all_failed.metrics == {f"invmm/{name}": count for name, count in counts.items()}
    assert set(all_failed.artifacts) == {"invmm_table.json", "invmm/report.html", "invmm/config.json"}
    for found in (none_replicated, all_failed):
        assert mlflow.MlflowClient().get_run(found.run_id).data.metrics == found.metrics


@pytest.mark.parametrize(
    "data",
    [
        lambda files: pandas.DataFrame({"image": [Path(file).read_bytes() for file in files[:2]]}),
        lambda files: pandas.DataFrame({"image": [np.asarray(Image.open(file)) for file in files[:2]]}),
        lambda files: mlflow.data.from_huggingface(
            Dataset.from_dict({"image": [Image.open(file) for file in files[:2]]})
        ),
    ],
    ids=["bytes", "arrays", "data set"],
)
@pytest.mark.usefixtures("exact")
def test_images_come_in_all_forms_that_mlflow_takes(data: Callable[[list[str]], object], files: list[str]) -> None:
    found = evaluate(data(files), EXACT)
    assert (found.metrics["invmm/images"], found.metrics["invmm/replicated_fraction"]) == (2, 1)


def test_captions_are_a_feature(tmp_path: Path) -> None:
    captions = ["a red heart", "a blue cat", None]
    images = [np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), np.uint8) for seed in range(3)]
    data = pandas.DataFrame({"ignored": 0, "picture": images, "text": captions})
    found = mlflow.models.evaluate(
        data=data,
        feature_names=["picture", "text"],
        model_type="diffusion",
        evaluator_config={
            "invmm": {
                "model": tiny_stable_diffusion(),
                "backbone_options": {"prompt_mode": "caption"},
                "captions": "text",
                "settings": {**TINY, "guidance": (1.0,)},
                "names": True,
                "out": tmp_path,
            }
        },
    )
    table = mlflow.load_table("invmm_table.json", run_ids=[found.run_id]).sort_values("index")
    assert table["prompt"].dropna().tolist() == captions[:2]
    assert table["status"].tolist() == ["exhausted", "exhausted", "failed"]


@pytest.mark.usefixtures("exact")
def test_what_cannot_be_done_is_told_in_one_sentence(files: list[str]) -> None:
    with pytest.raises(InvMMError, match=r"leave it out, and give a folder"):
        evaluate(files, {})
    with pytest.raises(InvMMError, match=r"leave it out, and give a folder"):
        mlflow.models.evaluate(
            model=len, data=files, model_type="diffusion", evaluators="invmm", evaluator_config=EXACT
        )
    with pytest.raises(InvMMError, match="There is no option 'picture'"):
        evaluate(files, {**EXACT, "picture": True})
    with pytest.raises(InvMMError, match="no column 'text'"):
        evaluate(files, {**EXACT, "captions": "text"})
    assert mlflow.last_active_run().info.status == "FAILED"


def test_mlflow_finds_it_and_pays_nothing_for_it() -> None:
    """In a fresh process, where the package has not been imported yet."""
    code, out, err = python(LIGHT)
    assert code == 0, err
    name, can, imported, torch_too = json.loads(out.splitlines()[-1])
    assert name == "invmm"
    assert can == [False, False, False, True]
    assert set(imported) <= {"invmm_eval"}
    assert not torch_too
