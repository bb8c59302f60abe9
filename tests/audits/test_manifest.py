"""The manifest of an audit, and what `verify` finds."""

import hashlib
import json
import platform
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from invmm_eval.audits.folder import read
from invmm_eval.audits.folder.manifest import FILE, verify
from invmm_eval.audits.folder.requested import Requested
from invmm_eval.audits.folder.rows import line_of
from invmm_eval.audits.folder.writing import Store
from invmm_eval.errors import InvMMError
from invmm_eval.reports.findings import find
from tests.helpers.audits import CONFIG, guided, write

REQUEST = {"model": "org/painter", "images": ["pictures"], "captions": None, "seed": 3, "recipe": "fast"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = guided(tmp_path_factory.mktemp("audit") / "audit")
    with Store(folder, CONFIG, Requested.now([row["name"] for row in read(folder).rows]), REQUEST) as store:
        (store.folder / "whole.json").write_text("{}")
    return folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "audit")


def test_it_holds_inputs_versions_command_and_the_digest_of_each_file(finished: Path) -> None:
    manifest = json.loads((finished / FILE).read_text())
    expected = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in finished.glob("[a-z]*.json*")
        if path.name != FILE
    }
    assert manifest["files"] == expected
    assert expected.keys() == {"config.json", "request.json", "images.json", "results.jsonl", "whole.json"}
    assert manifest["command"] == find(finished).command
    assert manifest["versions"] == {"python": platform.python_version(), **CONFIG["versions"]}
    assert manifest["inputs"]["weights"] == "5" * 40
    assert manifest["inputs"]["similarity"]["sha256"] == "a" * 64


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def changed(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [cut, changed, Path.unlink])
def test_each_damage_to_a_file_is_one_sentence_that_names_it(harm: Callable[[Path], None], copied: Path) -> None:
    assert verify(copied) == []
    files = sorted(path for path in copied.rglob("*") if path.is_file() and path.name not in (FILE, ".lock"))
    assert len(files) == 5 + 2 * 6
    for file in files:
        kept = file.read_bytes()
        harm(file)
        try:
            [told] = verify(copied)
        finally:
            file.write_bytes(kept)
        if file.name != "config.json":  # without it there is no audit
            assert str(file) in told
        assert told.endswith(".")
    assert verify(copied) == []


def test_a_forged_row_with_a_new_checksum_is_noticed(copied: Path) -> None:
    lines = (copied / "results.jsonl").read_bytes().splitlines(keepends=True)
    row = {key: value for key, value in json.loads(lines[0]).items() if key != "crc32"}
    (copied / "results.jsonl").write_bytes(line_of({**row, "kl": 9.0}) + b"".join(lines[1:]))
    assert find(copied).images == len(lines)
    [told] = verify(copied)
    assert told.startswith(f"{copied / 'results.jsonl'} is not what the run wrote: its SHA-256 is not that in {FILE}.")


def test_a_run_that_was_killed_leaves_no_manifest_and_its_next_one_writes_it(copied: Path, tmp_path: Path) -> None:
    with Store(copied, CONFIG):
        with pytest.raises(InvMMError, match=r"A run is writing to .*; verify it when it has ended"):
            verify(copied)
        killed = shutil.copytree(copied, tmp_path / "killed", ignore=shutil.ignore_patterns(".lock"))
    [told] = verify(killed)
    assert told.startswith(f"{killed / FILE} is missing, as if the run had not ended; run the same command again")
    write(killed, [])
    assert verify(killed) == []


def test_a_refused_run_leaves_the_manifest_and_lets_the_folder_go(copied: Path) -> None:
    before = (copied / FILE).read_bytes()
    with pytest.raises(InvMMError, match="another config") as refused:
        Store(copied, {**CONFIG, "seed": 4})
    assert (copied / FILE).read_bytes() == before
    assert verify(copied) == []
    assert refused.value, "it holds the refused store, which would let the folder go when it is deleted"


def test_a_folder_without_an_audit_and_a_newer_manifest_are_told(copied: Path, tmp_path: Path) -> None:
    with pytest.raises(InvMMError, match="holds no audit that can be read"):
        verify(tmp_path / "none")
    (copied / FILE).write_text('{"format": 2}')
    assert verify(copied) == [f"{copied / FILE} has format 2; this version reads 1. Upgrade invmm-eval."]
