"""Streaming data sets give the images that the same data sets give when they are loaded."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets.packaged_modules.parquet import parquet
from PIL import Image

from invmm_eval.audits import streams
from invmm_eval.audits.images import find_images
from invmm_eval.errors import InvMMError
from tests.helpers import audits
from tests.helpers.exact import Mixture, pictures
from tests.helpers.images import shade

SHADES = list(range(40))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of two Parquet files with an image of each shade and its text."""
    folder = tmp_path_factory.mktemp("set")
    kinds = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    for number in range(2):
        part = SHADES[20 * number : 20 * number + 20]
        rows = {"image": [Image.new("L", (4, 4), shade) for shade in part], "text": [f"shade {s}" for s in part]}
        datasets.Dataset.from_dict(rows, kinds).to_parquet(folder / f"train-{number}.parquet", batch_size=5)
    return folder


@pytest.fixture(autouse=True)
def short_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_INTERVAL", 8)


def streamed(folder: Path) -> datasets.IterableDataset:
    return datasets.load_dataset(str(folder), split="train", streaming=True)


def test_a_stream_gives_its_images_in_any_order(folder: Path) -> None:
    found = find_images(streamed(folder), captions="text")
    assert [source.caption for source in found] == [f"shade {value}" for value in SHADES]
    assert [source.name for source in found[:2]] == ["dataset#0", "dataset#1"]
    assert [shade(source) for source in found] == SHADES
    assert [shade(found[number]) for number in (39, 3, 4, 9, 38, 0, 0)] == [39, 3, 4, 9, 38, 0, 0]


def test_a_text_names_a_stream_as_it_names_a_data_set(folder: Path) -> None:
    found, loaded = (find_images(f"{kind}:{folder}:train:image") for kind in ("stream", "dataset"))
    assert [source.name for source in found] == [source.name for source in loaded]
    assert list(map(shade, found)) == list(map(shade, loaded)) == SHADES


def test_images_that_are_looked_at_in_order_are_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Any] = []
    tables = parquet.Parquet._generate_tables

    def counted(*arguments: Any, **more: Any) -> Iterator[Any]:
        for table in tables(*arguments, **more):
            read.append(table[0])
            yield table

    monkeypatch.setattr(parquet.Parquet, "_generate_tables", counted)
    found = find_images(streamed(folder))
    listed = len(read)
    assert [shade(source) for source in found] == SHADES
    assert len(read) == 2 * listed > 0


@pytest.mark.parametrize("change", ["shuffle", "map", "generator"])
def test_a_stream_may_be_changed_on_its_way(change: str, folder: Path) -> None:
    def generated() -> Iterator[dict[str, Any]]:
        yield from ({"picture": Image.new("L", (4, 4), value)} for value in SHADES)

    shelf = datasets.load_dataset("parquet", data_files=str(folder / "*.parquet"), split="train")
    stream = {
        "shuffle": lambda: shelf.to_iterable_dataset().shuffle(seed=0, buffer_size=10),
        "map": lambda: streamed(folder).map(lambda row: row),
        "generator": lambda: datasets.IterableDataset.from_generator(generated),
    }[change]()
    found = find_images(stream)
    shades = [shade(source) for source in found]
    assert sorted(shades) == SHADES
    assert (shades != SHADES) == (change == "shuffle")
    assert [shade(found[number]) for number in (30, 2, 3, 31)] == [shades[number] for number in (30, 2, 3, 31)]


def test_what_a_stream_lacks_is_told(folder: Path) -> None:
    count = iter(range(10_000))
    changing = datasets.IterableDataset.from_generator(
        lambda: ({"image": Image.new("L", (4, 4), next(count) % 256)} for _ in range(3))
    )
    for given, captions, sentence in (
        (streamed(folder).select_columns("text"), None, "'dataset' has no images in any column; its columns are text"),
        (streamed(folder), "label", "'dataset' has no column of texts 'label'; its columns of texts are: text"),
        (streamed(folder).map(lambda row: {"text": 1 / len(row["gone"])}), None, "'dataset' cannot be read"),
        (streamed(folder).take(0), None, "There is no image to audit"),
    ):
        with pytest.raises(InvMMError, match=sentence):
            find_images(given, captions=captions)
    with pytest.raises(InvMMError, match="'dataset' gives different images each time it is read; fix the order"):
        shade(find_images(changing)[0])


def test_an_audit_of_a_stream_is_resumed(tmp_path: Path) -> None:
    known = pictures(2)
    stream = audits.streamed([*known, *pictures(1, seed=99)])
    settings = {"max_steps": 10, "check_every": 5, "draws": 4, "check_images": 2, "sampler_steps": 4}
    plan = audits.planned(Mixture(known), similarity="pixel-cosine", settings=settings)
    first = list(audits.run_plan(plan, find_images(stream.take(2)), out=tmp_path))
    searched: set[str] = set()
    again = list(
        audits.run_plan(
            plan,
            find_images(stream),
            out=tmp_path,
            on_step=lambda searches: searched.update(search.target.name for search in searches),
        )
    )
    assert (len(first), len(again), searched) == (2, 3, {"dataset#2"})
