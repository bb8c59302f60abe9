"""The benchmark on paper fits what the Hub reads and what the commands write."""

from pathlib import Path

import pytest
import yaml
from huggingface_hub import parse_eval_result_entries

from tests.helpers.audits import guided
from tests.helpers.command import Invoke
from tests.helpers.documents import ROOT, blocks

EVAL, ENTRY = (
    yaml.safe_load(block.text) for block in blocks(ROOT / "docs" / "hub-benchmark.md") if block.language == "yaml"
)


def test_the_tasks_are_those_of_the_entries_that_a_card_brings(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = guided(tmp_path / "audit")
    invoke.out("card", folder, "--model-card", "README.md", "--dataset", "ORG/DATASET")
    written = parse_eval_result_entries(yaml.safe_load((tmp_path / ".eval_results" / "invmm.yaml").read_text()))
    assert [entry.task_id for entry in written] == [task["id"] for task in EVAL["tasks"]]
    assert all(entry.date and entry.dataset_id == "ORG/DATASET" for entry in written)
    [shown] = parse_eval_result_entries(ENTRY)
    assert shown.task_id == written[0].task_id
    assert shown.source_url


def test_the_benchmark_has_the_keys_that_the_hub_documents() -> None:
    assert EVAL.keys() == {"name", "description", "evaluation_framework", "tasks"}
    assert all(task.keys() == {"id", "config", "split"} for task in EVAL["tasks"])
