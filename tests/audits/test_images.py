"""Images of any kind are listed without being read, with their names and captions, or one sentence says why not."""

import math
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from invmm_eval.audits.images import Source, find_images
from invmm_eval.audits.pictures import prepare
from invmm_eval.audits.request import Request
from invmm_eval.audits.run import audit
from invmm_eval.errors import InvMMError
from tests.helpers.command import TINY
from tests.helpers.images import noise, png, shade


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def names(*where: Any) -> list[str]:
    return [source.name for source in find_images(*where)]


def shades(sources: list[Source]) -> list[int]:
    return list(map(shade, sources))


def texts(*where: Any, captions: Any = None) -> list[str | None]:
    return [source.caption for source in find_images(*where, captions=captions)]


def unreadable(source: Source) -> str:
    with pytest.raises(InvMMError) as caught:
        prepare(source.value, (1, 4, 4))
    return str(caught.value)


def not_found(*where: Any, captions: Any = None) -> str:
    with pytest.raises(InvMMError) as caught:
        find_images(*where, captions=captions)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def captioned(folder: Path, **texts: str) -> Path:
    for name, text in texts.items():
        (folder / f"{name}.png").write_bytes(png(0))
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    return folder


# Files


@pytest.mark.parametrize("as_text", [True, False])
@pytest.mark.parametrize("name", ["a.png", "größe 画像 🙂.png", "two\nlines.png", "[1]*.png", "no suffix"])
def test_a_file_of_any_name_is_an_image(tmp_path: Path, name: str, as_text: bool) -> None:
    path = tmp_path / name
    path.write_bytes(png(7))
    (source,) = find_images(str(path) if as_text else path)
    assert (source.name, shade(source)) == (path.as_posix(), 7)


def test_a_folder_gives_its_image_files_sorted(tmp_path: Path) -> None:
    base = tmp_path / ".hidden"
    visible = ["B.JPG", "a.png", "sub/deep/画.WebP", "sub/two\nlines.tiff", "z.jpeg"]
    other = [".hidden.png", ".thumbnails/a.png", "sub/._a.png", "notes.txt", "png", "table.parquet"]
    for name in visible + other:
        path = base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (base / "folder.png").mkdir()
    os.mkfifo(base / "pipe.png")
    assert names(base) == names(str(base)) == visible
    assert [source.value for source in find_images(base)] == [str(base / name) for name in visible]


@pytest.mark.parametrize("where", ["", "below/audit"])
def test_what_an_audit_wrote_among_its_images_is_not_audited(where: str, tiny_folder: Path, tmp_path: Path) -> None:
    for name in ("a.png", "samples/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(noise(8, 8 + len(name))).save(tmp_path / name)
    (tmp_path / where).mkdir(parents=True, exist_ok=True)
    found = audit(tiny_folder, tmp_path, out=tmp_path / where, recipe="demo", settings=TINY, similarity="pixel-cosine")
    assert [result.name for result in found] == ["a.png", "samples/b.png"] == names(tmp_path)
    assert len(list((tmp_path / where / "samples").glob("*/*.png"))) == 2


def test_a_dangling_link_is_listed_and_fails_alone(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to(tmp_path / "gone")
    assert "No such file" in unreadable(find_images(tmp_path)[0])


def test_images_are_found_from_another_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    captioned(tmp_path, a="one")
    monkeypatch.chdir(tmp_path)
    found = find_images("a.png", ".")
    monkeypatch.chdir("/")
    assert [source.name for source in found] == ["a.png", "a.png"]
    assert shades(found) == [0, 0]


# Images in memory, lists and streams


def test_images_in_memory_are_named_by_position(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(7))
    image, array, tensor = Image.new("L", (4, 4), 7), np.full((4, 4), 7, np.uint8), torch.full((1, 4, 4), 7 / 255)
    images = [image, array, str(path), tensor, path.read_bytes(), {"bytes": path.read_bytes()}]
    expected = ["0", "1", path.as_posix(), "3", "4", "5"]
    assert names(images) == names(*images) == names(images[:3], *images[3:]) == expected
    assert shades(find_images(images)) == [7] * 6
    assert names(np.zeros((4, 4, 3), np.uint8)) == names(torch.zeros(3, 4, 4)) == ["0"]


@pytest.mark.parametrize(
    "container",
    [
        lambda paths: iter(paths),
        lambda paths: (path for path in paths),
        lambda paths: paths[0].parent.glob("*.png"),
        lambda paths: set(paths),
        lambda paths: dict.fromkeys(paths).keys(),
        lambda paths: np.array([str(path) for path in paths]),
        lambda paths: [[paths[0]], (paths[1],)],
        lambda paths: pd.Series(paths),
    ],
    ids=["iterator", "generator", "glob", "set", "keys", "array of texts", "nested", "series"],
)
def test_any_list_or_stream_of_images_is_listed(container: Callable[[list[Path]], Any], tmp_path: Path) -> None:
    paths = sorted(captioned(tmp_path, a="one", b="two").glob("*.png"))
    assert sorted(names(container(paths))) == [path.as_posix() for path in paths]
    request = Request.of("model", container(paths))
    assert len(request.sources) == len(replace(request, choices=request.choices).sources) == 2


@pytest.mark.parametrize("nested", [False, True])
def test_an_open_file_is_one_image_however_often_it_is_listed(nested: bool, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(7))
    with (tmp_path / "a.png").open("rb") as file:
        for opened in (file, BytesIO(png(7))):
            request = Request.of("model", [opened] if nested else opened)
            for again in (request, replace(request, choices=request.choices)):
                assert shades(again.sources) == [7]


def test_a_batch_is_its_images() -> None:
    pixels = noise(2, 7, 5, 3)
    for batch in (pixels, torch.from_numpy(pixels).movedim(-1, 1)):
        found = find_images(batch)
        assert [source.name for source in found] == ["0", "1"]
        for source, image in zip(found, pixels, strict=True):
            np.testing.assert_array_equal(prepare(source.value, (3, 7, 5)).permute(1, 2, 0).numpy(), image)


# Data sets


def table(**columns: Any) -> datasets.Dataset:
    features = {name: datasets.Image() if name in ("image", "mask") else datasets.Value("string") for name in columns}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def painted(*values: int) -> list[dict[str, Any]]:
    return [{"bytes": png(value), "path": None} for value in values]


def folders(base: Path, **values: int) -> Path:
    """A folder for each name, with an image of its shade."""
    for name, value in values.items():
        (base / name).mkdir()
        (base / name / "a.png").write_bytes(png(value))
    return base


BROKEN = {"bytes": b"broken", "path": "broken.png"}


def test_a_corrupt_row_fails_alone() -> None:
    sources = find_images(table(label=["x", "y", "z", "none"], image=[painted(1)[0], BROKEN, painted(3)[0], None]))
    assert [source.name for source in sources] == ["dataset#0", "dataset#1", "dataset#2", "dataset#3"]
    assert shades([sources[0], sources[2]]) == [1, 3]
    assert "'broken.png' cannot be used: it is damaged" in unreadable(sources[1])
    assert "cannot be used" in unreadable(sources[3])


def test_the_first_column_of_images_is_taken_in_the_datasets_order_and_no_other_is_read() -> None:
    rows = table(label=["x", "y", "z"], image=painted(1, 2, 3), mask=[BROKEN] * 3)
    sources = find_images(rows.select([2, 0]).with_format("pandas"))
    assert shades(pickle.loads(pickle.dumps(sources))) == [3, 1], "in another process too"


def test_a_local_parquet_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "[ab]" / "rows [1].parquet"
    path.parent.mkdir()
    table(label=["a", "b", "c"], image=painted(1, 2, 3), mask=painted(4, 5, 6)).to_parquet(path)
    name = f"dataset:{path}"
    assert shades(find_images(name)) == [1, 2, 3]
    assert names(name) == [f"{path}[train]#0", f"{path}[train]#1", f"{path}[train]#2"]
    assert shades(find_images(f"{name}:train[1:]")) == [2, 3]
    assert shades(find_images(f"{name}:train[:1]+train[2:]:mask")) == [4, 6]
    assert shades(find_images(f"{name}::mask")) == [4, 5, 6]
    assert texts(f"{name}:train[1:]", captions="label") == ["b", "c"]
    for column in ("picture", "label "):
        told = not_found(f"{name}:train:{column}")
        assert f"no images in {column}; its columns are label, image, mask" in told
    monkeypatch.chdir(path.parent)
    assert names("dataset:rows [1].parquet:train[:1]") == ["rows [1].parquet[train[:1]]#0"]


def test_a_local_table_of_paths(tmp_path: Path) -> None:
    for value in (1, 2):
        (tmp_path / f"{value}.png").write_bytes(png(value))
    lines = [f'{{"id": {value}, "file": "{tmp_path.as_posix()}/{value}.png"}}' for value in (1, 2, 3)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    sources = find_images(f"dataset:{tmp_path}/rows.jsonl:train:file")
    assert shades(sources[:2]) == [1, 2]
    assert "3.png' cannot be used: No such file" in unreadable(sources[2])
    assert "no images in any column; its columns are id, file" in not_found(f"dataset:{tmp_path}/rows.jsonl")


def test_a_local_folder_as_a_dataset_with_splits(tmp_path: Path) -> None:
    name = f"dataset:{folders(tmp_path, train=1, test=2)}"
    assert shades(find_images(name)) == [1]
    assert shades(find_images(f"{name}:test")) == [2]
    assert names(f"{name}:test") == [f"{tmp_path}[test]#0"]
    assert "'other'" in not_found(f"{name}:other")


def test_a_configuration_of_a_dataset_is_named_before_its_split(tmp_path: Path) -> None:
    listed = "".join(f"- config_name: {name}\n  data_files: {name}/*.png\n" for name in ("small", "large"))
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n{listed}---\n")
    name = f"dataset:{folders(tmp_path, small=1, large=2)}"
    assert shades(find_images(f"{name}:large/train")) == shades(find_images(f"{name}:large/")) == [2]
    assert names(f"{name}:small/train:image") == [f"{tmp_path}[small/train]#0"]
    for text in ("", ":small", ":other/train"):
        told = not_found(f"{name}{text}")
        assert f"has several configurations (small, large); name one before its split, as in {name}" in told


def test_rows_and_batches_of_a_dataset_are_its_images() -> None:
    rows = table(label=["x", "y", "z"], image=painted(1, 2, 3))
    assert shades(find_images(rows[0])) == [1]
    assert shades(find_images(rows[1:])) == shades(find_images(list(rows)[1:])) == [2, 3]
    assert shades(find_images(rows["image"])) == shades(find_images(list(rows.to_iterable_dataset()))) == [1, 2, 3]
    assert shades(find_images(rows.with_format("torch")[:2])) == [1, 2]
    assert names(rows[:2], rows[2]) == ["0", "1", "2"]
    assert texts(rows[:2], rows[2], captions="label") == ["x", "y", "z"]


def test_the_only_split_is_taken() -> None:
    rows = table(image=painted(1, 2))
    assert shades(find_images(datasets.DatasetDict(train=rows))) == [1, 2]
    assert shades(find_images(datasets.IterableDatasetDict(train=rows.to_iterable_dataset()))) == [1, 2]


@pytest.mark.parametrize(
    "kind",
    [
        datasets.Value("binary"),
        datasets.Value("large_binary"),
        {"bytes": datasets.Value("binary"), "path": datasets.Value("string")},
        {"bytes": datasets.Value("binary"), "width": datasets.Value("int64")},
    ],
)
def test_a_column_of_bytes_holds_images(kind: Any) -> None:
    stored = {"bytes": png(5), "path": "a.png", "width": 4}
    value = {name: stored[name] for name in kind} if isinstance(kind, dict) else png(5)
    features = datasets.Features({"hash": datasets.Value("string"), "picture": kind})
    assert shades(find_images(datasets.Dataset.from_dict({"hash": ["x"], "picture": [value]}, features))) == [5]


@pytest.mark.parametrize("kind", ["csv", "parquet", "json", "folder with csv", "folder with jsonl", "pandas"])
def test_texts_of_any_kind_of_table_are_captions(kind: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(9))
    frame = pd.DataFrame({"file_name": ["a.png"], "image": [str(tmp_path / "a.png")], "text": ["a red cat"]})
    where: Any = f"dataset:{tmp_path}/t.{kind}:train:image"
    match kind:
        case "csv":
            frame.to_csv(tmp_path / "t.csv", index=False)
        case "parquet":
            frame.to_parquet(tmp_path / "t.parquet")
        case "json":
            frame.to_json(tmp_path / "t.json", orient="records")
        case "pandas":
            where = datasets.Dataset.from_pandas(frame).cast_column("image", datasets.Image())
        case "folder with csv":
            where = f"dataset:{tmp_path}"
            frame.drop(columns="image").to_csv(tmp_path / "metadata.csv", index=False)
        case _:
            where = f"dataset:{tmp_path}"
            frame.drop(columns="image").to_json(tmp_path / "metadata.jsonl", orient="records", lines=True)
    [source] = find_images(where, captions="text")
    assert (source.caption, shade(source)) == ("a red cat", 9)


# Captions


def test_captions_lie_beside_image_files(tmp_path: Path) -> None:
    captioned(tmp_path, b="  a blüe heart\n", a="\ufeffa red cat")  # with the mark of a byte order
    assert texts(tmp_path, tmp_path / "b.png", captions=".txt") == ["a red cat", "a blüe heart", "a blüe heart"]
    assert texts(tmp_path) == [None, None]


def test_captions_are_a_column_of_a_dataset() -> None:
    rows = table(image=painted(1, 2, 3), text=["one", "two", None], tag=["x", "y", "z"])
    assert texts(rows, captions="text") == ["one", "two", None]
    assert texts(rows.select([1, 0]), captions="tag") == ["y", "x"]
    assert texts(rows) == [None] * 3


def test_captions_may_be_any_list_of_texts() -> None:
    for captions in (["a", None], iter(["a", None]), table(text=["a", None])["text"], np.array(["a", None], object)):
        assert texts([np.zeros((4, 4), np.uint8), b"other"], captions=captions) == ["a", None]


def test_a_file_that_is_no_caption_is_told(tmp_path: Path) -> None:
    text = captioned(tmp_path, a="") / "a.txt"
    text.write_bytes(b"\xff\xfe\x00")
    for _ in range(2):
        assert "The caption of 'a.png' cannot be read" in not_found(tmp_path, captions=".txt")
        text.unlink()
        os.mkfifo(text)  # reading it would never end


# What cannot be listed

ROW = {"image": b"one", "text": "\udcff"}


@pytest.mark.parametrize(
    ("images", "captions", "told"),
    [
        ([], None, "There is no image to audit"),
        (None, None, "There is no image to audit"),
        ({}, None, "There is no image to audit"),
        (datasets.DatasetDict(), None, "There is no image to audit"),
        (table(image=[]), None, "There is no image to audit"),
        (3, None, "The type int cannot be listed as images; give a folder"),
        ([b"one", 3], None, "The type int cannot be listed"),
        (pd.DataFrame({"image": ["a.png"]}), None, "DataFrame cannot be listed as images; give a datasets.Dataset"),
        ("", None, "name of an image or folder is empty"),
        ("nul\0byte", None, "cannot be opened: "),
        ("x" * 5000, None, "cannot be opened: "),
        ("/no/gone.png", None, "gone.png' cannot be opened: No such file"),
        ({"label": 3}, None, "There is no image in a row; its columns are label"),
        ({"first": "a.png"}, None, "There is no image in a row; its columns are first"),
        ({"image": ["a.png"]}, None, "There is no image in a row; its columns are image"),
        (
            datasets.DatasetDict(train=table(image=[]), test=table(image=[])),
            None,
            "A DatasetDict has several data sets; give one of its splits (train, test), as in images['train'].",
        ),
        *(
            (text, None, "is not of the form dataset:NAME")
            for text in ("dataset:", "dataset::train", "dataset:x:train[")
        ),
        ("dataset:/none/such", None, "The split 'train' of the dataset '/none/such' cannot be loaded"),
        (table(label=["a"]), None, "no images in any column; its columns are label"),
        *(
            (
                table(image=painted(1), text=["one"]),
                name,
                f"no column of texts '{name}'; its columns of texts are: text",
            )
            for name in ("words", "image", ".txt")
        ),
        (ROW, "label", "A row has no text in 'label'; its columns are image, text"),
        (ROW, "text", "A row has no text in 'text'"),
        (Image.new("L", (4, 4)), ".txt", "An image in memory has no '.txt' beside it; give captions as a list"),
        (b"one", ["a", "b"], "There are 2 captions for 1 images; give one for each"),
        *((b"one", wrong, "give a list of texts, one for each image") for wrong in (5, b"ab")),
        *((b"one", [wrong], f"A caption is {wrong!r}, which is no text; give None") for wrong in (math.nan, "\udcff")),
    ],
)
def test_what_cannot_be_listed_is_told(images: Any, captions: Any, told: str) -> None:
    assert told in not_found(images, captions=captions)


@pytest.mark.parametrize(
    ("name", "captions", "told"),
    [
        ("", None, "holds no image file (.png, .jpg, .webp, .tif, ...)"),
        *(
            (packed, None, "compressed together and cannot be read one by one; unpack it")
            for packed in ("a.zip", "a.tar.gz", "a.TGZ")
        ),
        ("a.png", ".caption", "cannot be read (No such file"),
        ("a.png", "text", "Image files have no column 'text'; name the ending of the text files beside them"),
        ("t.jsonl", None, "cannot be loaded: JSON parse error"),
    ],
)
def test_files_that_cannot_be_listed_are_told(name: str, captions: str | None, told: str, tmp_path: Path) -> None:
    (tmp_path / (name or "notes.txt")).write_text('{"image": "a.png"\n')
    where = f"dataset:{tmp_path}/{name}:train:image" if name.endswith("jsonl") else tmp_path / name
    assert told in not_found(where, captions=captions)
