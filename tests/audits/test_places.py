"""Pictures where they are: in memory's file system as on any other of fsspec, and in archives."""

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from invmm_eval.audits.images import find_images
from invmm_eval.errors import InvMMError
from tests.helpers.images import png, shade

GREYS = (10, 20, 30, 40, 50)


def found(*where: str, captions: str | None = None) -> list[tuple[str, int, str | None]]:
    return [(source.name, shade(source), source.caption) for source in find_images(*where, captions=captions)]


def tar(path: str, greys: tuple[int, ...], texts: bool = True) -> None:
    with fsspec.open(path, "wb") as file, tarfile.open(fileobj=file, mode="w") as archive:
        for value in greys:
            entries = {f"{value:04d}.png": png(value), f"{value:04d}.json": b"{}"}
            if texts:
                entries |= {f"{value:04d}.txt": f"grey {value}\n".encode()}
            for name, contents in entries.items():
                member = tarfile.TarInfo(name)
                member.size = len(contents)
                archive.addfile(member, io.BytesIO(contents))


class Watched:
    """What was read of the files of memory's file system: the number of bytes of each call."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.read: list[int] = []
        system = type(fsspec.filesystem("memory"))
        cat = system.cat_file

        def cat_file(this: Any, path: str, *arguments: Any, **options: Any) -> bytes:
            contents: bytes = cat(this, path, *arguments, **options)
            self.read.append(len(contents))
            return contents

        patch.setattr(system, "cat_file", cat_file)


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    yield Watched(monkeypatch)
    fsspec.filesystem("memory").rm("/", recursive=True)


def test_a_folder_of_another_file_system_is_listed_without_reading_it(memory: Watched) -> None:
    system = fsspec.filesystem("memory")
    for value, name in zip(GREYS, ("b.png", "a.png", "sub/c.PNG", ".hidden/d.png", "notes.txt"), strict=True):
        system.pipe_file(f"/bucket/{name}", png(value))
        system.pipe_file(f"/bucket/{Path(name).with_suffix('.txt')}", f"text of {name}".encode())
    sources = find_images("memory://bucket")
    assert [source.name for source in sources] == ["a.png", "b.png", "sub/c.PNG"]
    assert memory.read == []
    assert [shade(source) for source in sources] == [20, 10, 30]
    assert memory.read == [len(png(value)) for value in (20, 10, 30)]
    assert found("memory://bucket/a.png", captions=".txt") == [("a.png", 20, "text of a.png")]


@pytest.mark.parametrize("place", ["memory://shards", "local"])
def test_the_images_of_tar_files_are_read_at_their_place_in_it(place: str, memory: Watched, tmp_path: Path) -> None:
    folder = str(tmp_path) if place == "local" else place
    tar(f"{folder}/train-0.tar", GREYS[:2])
    tar(f"{folder}/train-1.tar", GREYS[2:])
    assert found(f"{folder}/*.tar") == [(f"train-{int(g > 20)}.tar/{g:04d}.png", g, None) for g in GREYS]
    if place != "local":
        assert sum(memory.read) == sum(len(png(value)) for value in GREYS), "no byte but those of the images"
    memory.read.clear()
    sources = find_images(f"{folder}/train-0.tar", captions=".txt")
    assert [source.caption for source in sources] == ["grey 10", "grey 20"]
    assert memory.read == [], "texts are read as the file is listed"
    assert [shade(source) for source in sources] == [10, 20]


def test_a_name_in_a_tar_file_that_is_not_unicode_is_escaped(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("\udcff.png"))
    assert [source.name for source in find_images(tmp_path / "a.tar")] == ["a.tar/\\udcff.png"]


@pytest.mark.parametrize("stored", [True, False])
def test_the_rows_of_parquet_files_are_read_group_by_group(
    stored: bool, memory: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As data sets write them on the Hub, and with plain bytes."""
    texts = [f"grey {value}" for value in GREYS]
    if stored:
        features = datasets.Features({"text": datasets.Value("string"), "image": datasets.Image()})
        images = [{"bytes": png(value), "path": None} for value in GREYS]
        table = datasets.Dataset.from_dict({"text": texts, "image": images}, features).data.table
    else:
        table = pa.table({"text": texts, "image": pa.array(map(png, GREYS), pa.binary())})
    pq.write_table(table, tmp_path / "part.parquet", row_group_size=2)
    fsspec.filesystem("memory").pipe_file("/set/part.parquet", (tmp_path / "part.parquet").read_bytes())
    groups: list[int] = []
    read = pq.ParquetFile.read_row_group

    def watched(file: pq.ParquetFile, group: int, **how: Any) -> pa.Table:
        groups.append(group)
        return read(file, group, **how)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", watched)
    for where in ("memory://set/*.parquet", str(tmp_path / "part.parquet")):
        sources = find_images(where, captions="text")
        assert groups == []
        assert [source.name for source in sources] == [f"part.parquet#{index}" for index in range(5)]
        assert ([shade(source) for source in sources], [source.caption for source in sources]) == (list(GREYS), texts)
        assert groups == [0, 1, 2], "each group once, in a run through all"
        groups.clear()
    assert memory.read == []


@pytest.mark.parametrize("kind", [pa.large_string(), pa.string_view()])
def test_captions_in_parquet_are_texts_of_any_kind(kind: pa.DataType, tmp_path: Path) -> None:
    table = pa.table({"image": pa.array([png(9)], pa.large_binary()), "text": pa.array(["a cat"], kind)})
    pq.write_table(table, tmp_path / "t.parquet")
    [source] = find_images(tmp_path / "t.parquet", captions="text")
    assert (shade(source), source.caption) == (9, "a cat")


def test_an_error_of_a_file_system_is_one_sentence(memory: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    class NoCredentialsError(Exception):
        """As that of botocore, which is no OSError."""

    def refuse(*_: Any, **__: Any) -> None:
        raise NoCredentialsError("Unable to locate credentials")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "isdir", refuse)
    with pytest.raises(InvMMError, match="cannot be listed: Unable to locate credentials"):
        find_images("memory://full")
    assert memory.read == []


@pytest.mark.parametrize(
    ("where", "captions", "sentence"),
    [
        ("memory://nothing", None, "images at 'memory://nothing' cannot be listed: there is no file or folder"),
        ("memory://full/*.jpg", None, r"no image at 'memory://full/\*.jpg'; give an image file, a .tar or .parquet"),
        ("nowhere://full", None, "'nowhere://full' cannot be listed: Protocol not known: nowhere"),
        ("memory://full/no.tar", None, "no.tar' cannot be listed"),
        ("memory://full/no.parquet", None, "no.parquet' cannot be listed"),
        ("memory://full/silent.tar", ".txt", "image '0010.png' of silent.tar has no text '0010.txt' beside it"),
        ("memory://full/a.png", ".txt", "a.png' cannot be listed"),
        ("memory://full/rows.parquet", None, "rows.parquet has no column of images; its columns are number"),
        ("memory://full/good.parquet", "words", "has no column of texts 'words'; its columns of texts are: none"),
    ],
)
def test_what_cannot_be_listed_is_one_sentence(
    where: str, captions: str | None, sentence: str, memory: Watched, tmp_path: Path
) -> None:
    system = fsspec.filesystem("memory")
    for name in ("no.tar", "no.parquet", "a.png"):
        system.pipe_file(f"/full/{name}", b"neither")
    tar("memory://full/silent.tar", GREYS[:1], texts=False)
    for name, values in (("rows", {"number": [1]}), ("good", {"image": [b"bytes"]})):
        pq.write_table(pa.table(values), tmp_path / "file.parquet")
        system.pipe_file(f"/full/{name}.parquet", (tmp_path / "file.parquet").read_bytes())
    with pytest.raises(InvMMError, match=sentence) as caught:
        find_images(where, captions=captions)
    assert "\n" not in str(caught.value)
    assert memory.read in ([], [len(b"neither")])
