"""The results as a data set: what is written is what datasets reads, and what is sent."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from huggingface_hub import DatasetCard
from PIL import Image
from rich.console import Console

from invmm_eval.cli import publish
from invmm_eval.errors import InvMMError
from invmm_eval.reports.dataset import write_dataset
from invmm_eval.reports.findings import Findings, find
from tests.helpers import audits
from tests.helpers.command import Invoke
from tests.helpers.hub import Hub

FILES = {"README.md", "results.parquet", "config.json", "distribution.png", "croissant.json"}


def load(folder: Path, cache: Path) -> datasets.Dataset:
    return datasets.load_dataset(str(folder), split="test", cache_dir=str(cache))


def test_datasets_reads_what_was_found_and_written_in_parts(
    found: Findings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("invmm_eval.reports.dataset._ROWS", 2)
    files = write_dataset(found.public(names=True), tmp_path / "dataset", pictures=True)
    assert set(files) == FILES == {path.name for path in (tmp_path / "dataset").iterdir()}
    read = load(tmp_path / "dataset", tmp_path / "cache")
    assert read.remove_columns("pictures").to_list() == found.table().to_pylist()
    assert json.loads(files["config.json"].read_text()) == found.config
    assert read.features["pictures"] == datasets.Image()
    assert read["pictures"][-1] is None
    for row, result in zip(read, found.results[:-1], strict=False):
        with Image.open(found.picture(result)) as expected:
            assert np.array_equal(np.asarray(row["pictures"]), np.asarray(expected))


def test_images_are_private_unless_requested(found: Findings, tmp_path: Path) -> None:
    files = write_dataset(found.public(), tmp_path / "dataset")
    everything = b"".join(path.read_bytes() for path in files.values()).decode(errors="replace")
    everything += str(pq.read_table(files["results.parquet"]).to_pylist())
    assert not [text for text in (*audits.NAMES, "picture 4.png", "balloon", "damaged") if text in everything]
    read = load(tmp_path / "dataset", tmp_path / "cache")
    assert read["name"][:4] == [digest[:16] for digest in read["digest"][:4]]
    assert set(read["prompt"]) == {None}
    assert read["error"][-1] == "The reason is not published."


def test_the_card_is_what_the_hub_reads(found: Findings, tmp_path: Path) -> None:
    public = found.public()
    card = DatasetCard.load(write_dataset(public, tmp_path, pictures=True)["README.md"])
    assert card.data.pretty_name == "Memorization audit of org/painter@v1.0"
    for text in (public.headline, *public.paragraphs, public.command, "](distribution.png)", "`pictures`"):
        assert text in card.text


def test_an_audit_without_results_makes_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(InvMMError, match="has no results yet"):
        write_dataset(find(audits.write(tmp_path, [])), tmp_path / "dataset")
    assert not (tmp_path / "dataset").exists()


def test_a_folder_that_cannot_be_written_is_one_sentence(found: Findings, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvMMError, match=r"cannot be written to .*: Not a directory\.$"):
        write_dataset(found, tmp_path / "file" / "dataset")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with Hub({}) as serving:
        serving.redirect(monkeypatch, tmp_path / "cache")
        yield serving


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return audits.guided(tmp_path / "audit")


def test_without_a_network_all_of_it_is_shown(invoke: Invoke, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    code, out, err = invoke("push", copy, "org/audit")
    assert code == 0
    assert err.startswith("The Hub could not be reached")
    assert "\nadds results.parquet (" in out
    card = (copy / "dataset" / "README.md").read_text("utf-8")
    assert "".join(f"+{line}\n" for line in card.splitlines()) in (copy / "push.diff").read_text("utf-8")
    code, _, err = invoke("push", copy, "org/audit", "--yes")
    assert (code, err.splitlines()[-1][:34]) == (1, "error The Hub could not be reached")
    diff = copy / "push.diff"
    diff.unlink()
    diff.mkdir()
    code, _, err = invoke("push", copy, "org/audit")
    assert (code, err.splitlines()[-1]) == (1, f"error The changes cannot be written to {diff}: Is a directory.")


def test_a_terminal_shows_the_beginning_of_a_long_change(
    invoke: Invoke, copy: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "out", Console(force_terminal=True))
    out = invoke.out("push", copy, "org/audit")
    lines = (copy / "push.diff").read_text("utf-8").splitlines(keepends=True)
    assert "".join(lines[: publish.LINES]) in out
    assert "".join(lines[: publish.LINES + 1]) not in out
    assert f"{len(lines) - publish.LINES:,} more lines are in" in out
    assert hub.repositories == {}


@pytest.mark.parametrize("options", [[], ["--public"]])
def test_it_is_shown_first_and_then_sent(invoke: Invoke, copy: Path, hub: Hub, options: list[str]) -> None:
    seen = "public" if options else "private"
    out = invoke.out("push", copy, "org/audit", *options)
    assert out.startswith(
        f"Wrote the dataset to {copy / 'dataset'}.\nOn the Hub org/audit will be {seen}.\n--- /dev/null\n"
    )
    assert "\nadds results.parquet (" in out
    assert out.endswith(f"\nThe same is in {copy / 'push.diff'}.\nNothing was sent. Add --yes to send it.\n")
    assert (copy / "push.diff").read_text("utf-8") in out
    assert hub.repositories == {}

    code, out, _ = invoke("push", copy, "org/audit", *options, "--yes")
    there = hub.repositories["datasets/org/audit"]
    assert (code, there.private) == (0, not options)
    assert f"\n{hub.url}/datasets/org/audit/commit/" in out
    assert there.files == {path.name: path.read_bytes() for path in (copy / "dataset").iterdir()}
    sent = pq.read_table(io.BytesIO(there.files["results.parquet"]))
    assert sent.to_pylist() == find(copy).public().table().to_pylist()

    code, out, _ = invoke("push", copy, "org/audit", "--yes")
    assert out.endswith(f"On the Hub org/audit is {seen}.\norg/audit is up to date.\n")
    assert len(there.messages) == 1


@pytest.mark.parametrize("place", ["/api/repos/create", "/commit/"])
def test_a_refusal_leaves_the_data_set_on_disk(invoke: Invoke, copy: Path, hub: Hub, place: str) -> None:
    hub.refusals[place] = 403
    code, _, err = invoke("push", copy, "org/audit", "--yes")
    assert code == 1
    assert err.startswith("error The Hub refused the dataset org/audit (403, ")
    assert err.count("\n") == 1
    assert {path.name for path in (copy / "dataset").iterdir()} == FILES
