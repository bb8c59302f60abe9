"""An audit in mlflow's GenAI evaluation, through mlflow's own call, read back from a real store."""

from pathlib import Path
from typing import Any

import pytest

from invmm_eval.reports.findings import find
from invmm_eval.search.status import Status, Verdict
from tests.helpers import audits

mlflow = pytest.importorskip("mlflow", reason="mlflow is an extra: pip install invmm-eval[mlflow]")
pytestmark = pytest.mark.usefixtures("store")


def evaluated(data: list[dict[str, Any]]) -> Any:
    from invmm_eval.integrations.mlflow_genai import invmm

    return mlflow.genai.evaluate(data=data, scorers=[invmm])


def test_each_image_has_a_trace_with_what_was_found(tmp_path: Path, store: Path) -> None:
    from invmm_eval.integrations.mlflow_genai import rows

    folder = audits.guided(tmp_path / "audit")
    found = find(folder)
    run = evaluated(rows(folder, names=True, pictures=True))
    traces = mlflow.search_traces(run_id=run.run_id, return_type="list")
    by_name = {trace.data.spans[0].inputs["image"]: trace for trace in traces}
    assert by_name.keys() == {result.name for result in found.results}
    for result in found.results:
        trace = by_name[result.name]
        values = {assessment.name: assessment.value for assessment in trace.info.assessments}
        assert values.pop("memorized") is (result.verdict is Verdict.MEMORIZED)
        assert values.pop("replicated") is (result.status is Status.REPLICATED)
        assert values.pop("failed") is (result.status is Status.FAILED)
        share = result.plain_share and result.plain_share.rate
        expected = {"plain_share": share, "nats": result.nats}
        assert values == {name: pytest.approx(value) for name, value in expected.items() if value is not None}
        assert trace.data.spans[0].outputs["digest"] == result.digest
    assert run.metrics["memorized/mean"] == pytest.approx(1 / 7)
    assert run.metrics["replicated/mean"] == pytest.approx(4 / 7)
    assert run.metrics["failed/mean"] == pytest.approx(1 / 7)
    logged = {path.read_bytes() for path in store.rglob("attachments/*")}
    assert logged == {found.picture(result).read_bytes() for result in found.results if result.check}


def test_a_picture_that_the_folder_does_not_keep_is_left_out(tmp_path: Path) -> None:
    from invmm_eval.integrations.mlflow_genai import rows

    folder = audits.guided(tmp_path / "audit")
    found = find(folder)
    first, *others = [result for result in found.results if result.check]
    found.picture(first).unlink()
    shown = {row["outputs"]["digest"] for row in rows(folder, pictures=True) if "pictures" in row["outputs"]}
    assert shown == {result.digest for result in others}


def test_images_are_private_unless_requested(tmp_path: Path, store: Path) -> None:
    from invmm_eval.integrations.mlflow_genai import rows

    before = set(store.rglob("attachments/*"))
    folder = audits.guided(tmp_path / "audit")
    run = evaluated(rows(folder))
    everything = "".join(trace.to_json() for trace in mlflow.search_traces(run_id=run.run_id, return_type="list"))
    assert find(folder).results[0].digest[:16] in everything
    assert not [name for name in ("script", "long name", "Bild", "balloon", "damaged") if name in everything]
    assert set(store.rglob("attachments/*")) == before


def test_without_shares_nothing_is_said_about_memorized(tmp_path: Path) -> None:
    from invmm_eval.integrations.mlflow_genai import invmm, rows

    folder = audits.write(tmp_path / "audit", [audits.result(0, Status.REPLICATED, 0.1)])
    [row] = rows(folder)
    assert {said.name for said in invmm(outputs=row["outputs"])} == {"replicated", "failed", "nats"}
