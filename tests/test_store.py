"""The folder of an audit: that it can be gone on with, and says what it holds."""

import errno
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor

from invmm_eval.audit import Plan, make_plan
from invmm_eval.check import Check
from invmm_eval.errors import InvMMError
from invmm_eval.images import Source, Target
from invmm_eval.inversion import Search
from invmm_eval.result import Point, Result, Status
from invmm_eval.store import Store, read, strip
from tests.exact import Mixture, pictures

PICTURES = torch.cat([pictures(3), pictures(1, seed=99)])
SOURCES = [Source(f"picture {index}", picture) for index, picture in enumerate(PICTURES)]
CORRUPT = Source("corrupt", b"no image")
ALL = [*SOURCES[:2], CORRUPT, *SOURCES[2:]]
SETTINGS: dict[str, Any] = {"max_steps": 80, "check_every": 5, "draws": 8}


def plan(**choices: Any) -> Plan:
    """An audit of a model that knows the first three pictures, and not the fourth."""
    given = {"similarity": "pixel-cosine", "settings": SETTINGS, **choices}
    return make_plan(Mixture(PICTURES[:3]), "exact", **given)


def loaded(text: str | bytes) -> Any:
    """Strict JSON: it knows neither infinity nor NaN."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} in a file")

    return json.loads(text, parse_constant=refuse)


def rows(folder: Path) -> list[dict[str, Any]]:
    """The lines but for what differs from run to run, by index."""
    lines = (folder / "results.jsonl").read_bytes().splitlines()
    read = [{key: value for key, value in loaded(line).items() if "seconds" not in key} for line in lines]
    return sorted(read, key=lambda row: (row["index"], row["name"]))


def run(audit: Plan, sources: Sequence[Source], folder: Path, **options: Any) -> list[Result]:
    return sorted(audit.run(sources, out=folder, **options), key=lambda result: result.index)


class Watch:
    """Remembers which images were searched, and may stop the run."""

    def __init__(self, stop: Callable[[Search], bool] = lambda _: False) -> None:
        self.searched: set[str] = set()
        self._stop = stop

    def __call__(self, searches: Sequence[Search]) -> None:
        self.searched |= {search.target.name for search in searches}
        if any(map(self._stop, searches)):
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    found = run(plan(), ALL, folder)
    assert [result.status for result in found] == [*["replicated"] * 2, "failed", "replicated", "exhausted"]
    return folder


@pytest.fixture
def finished(undisturbed: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    for path in undisturbed.rglob("*"):
        if path.is_file():
            copy = tmp_path / "finished" / path.relative_to(undisturbed)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    return tmp_path / "finished"


def same_files(folder: Path, other: Path) -> bool:
    """Whether two audits found the same; the seconds are in the headers of the tensors."""

    def found(place: Path) -> Iterator[tuple[str, Any]]:
        for file in sorted(place.rglob("*.*")):
            if file.suffix == ".safetensors":
                with safe_open(file, "np") as tensors:
                    yield file.name, {name: tensors.get_tensor(name).tobytes() for name in tensors.keys()}  # noqa: SIM118
            elif file.name != "results.jsonl":
                yield file.name, file.read_bytes()

    return list(found(folder)) == list(found(other)) and rows(folder) == rows(other)


def test_the_config_is_written_once(tmp_path: Path) -> None:
    config = {"model": "m", "recipe": {"guidance": (1.0, 2.5), "threshold": None}, "seed": 0}
    folder = tmp_path / "made" / "on the way"
    Store(folder, config)
    written = (folder / "config.json").read_bytes()
    assert loaded(written) == {"model": "m", "recipe": {"guidance": [1.0, 2.5], "threshold": None}, "seed": 0}
    Store(folder, dict(reversed(config.items())))
    assert (folder / "config.json").read_bytes() == written
    assert not list(folder.glob("*.partial"))


@pytest.mark.parametrize(
    ("choices", "told"),
    [
        ({"seed": 1}, "another seed;"),
        ({"settings": {**SETTINGS, "draws": 9}}, "another recipe;"),
        ({"similarity": "ssim"}, "another similarity;"),
        ({"noise": "isotropic-gaussian"}, "another noise;"),
        ({"noise": "low-rank-gaussian", "noise_options": {"rank": 2}}, "another noise;"),
        ({"seed": 1, "settings": {}}, "another recipe, seed;"),
    ],
)
def test_another_config_is_refused(finished: Path, choices: dict[str, Any], told: str) -> None:
    before = {path: path.read_bytes() for path in finished.rglob("*.*")}
    with pytest.raises(InvMMError, match=told):
        run(plan(**choices), ALL, finished)
    assert {path: path.read_bytes() for path in finished.rglob("*.*")} == before


def test_a_key_that_is_new_or_gone_is_another_config(tmp_path: Path) -> None:
    Store(tmp_path, {"seed": 0, "old": 1})
    with pytest.raises(InvMMError, match="another new, old;"):
        Store(tmp_path, {"seed": 0, "new": 1})


@pytest.mark.parametrize("value", [float("inf"), float("nan"), Path("x"), np.int64(3)])
def test_a_config_that_is_no_json_is_told(tmp_path: Path, value: object) -> None:
    with pytest.raises(InvMMError, match="JSON cannot hold its config: "):
        Store(tmp_path, {"noise": {"rank": value}})


def test_a_finished_audit_is_not_measured_again(finished: Path, undisturbed: Path) -> None:
    expected = run(plan(), ALL, finished)
    watch = Watch()
    again = plan()
    found = run(again, ALL, finished, on_step=watch)
    assert watch.searched == set()
    assert again.backbone.rows_seen == []  # type: ignore[attr-defined]
    assert same_files(finished, undisturbed)
    for result, other in zip(found, expected, strict=True):
        assert result.record() == other.record()
        assert result.noise.keys() == other.noise.keys()
        assert all(torch.equal(result.noise[name], other.noise[name]) for name in other.noise)


def test_what_is_found_in_a_folder_is_what_was_found(tmp_path: Path) -> None:
    measured, read = (run(plan(), SOURCES[2:], tmp_path) for _ in range(2))
    for result, other in zip(read, measured, strict=True):
        assert result.record() == other.record()
        assert (result.check is None) == (other.check is None)
        for kept, expected in ((result.noise, other.noise), (result.check.samples, other.check.samples)):  # type: ignore[union-attr]
            assert kept.keys() == expected.keys()
            assert all(torch.equal(kept[name], expected[name]) for name in kept)  # type: ignore[index]


def interrupted_by_its_consumer(folder: Path, batch_size: int) -> None:
    results = plan().run(ALL, out=folder, batch_size=batch_size)
    next(results)
    next(results)
    results.close()  # type: ignore[attr-defined]


def interrupted_in_a_step(folder: Path, batch_size: int) -> None:
    watch = Watch(lambda search: search.target.name == "picture 3" and search.step == 7)
    with pytest.raises(KeyboardInterrupt):
        run(plan(), ALL, folder, batch_size=batch_size, on_step=watch)


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("interrupt", [interrupted_by_its_consumer, interrupted_in_a_step])
def test_an_interrupted_audit_is_gone_on_with(
    interrupt: Callable[[Path, int], None], batch_size: int, undisturbed: Path, tmp_path: Path
) -> None:
    interrupt(tmp_path, batch_size)
    there = {row["name"] for row in rows(tmp_path) if row["status"] != "failed"}
    assert 0 < len(there) < 4
    watch = Watch()
    run(plan(), ALL, tmp_path, batch_size=batch_size, on_step=watch)
    assert watch.searched == {source.name for source in SOURCES} - there
    assert same_files(tmp_path, undisturbed)


@pytest.mark.parametrize("left", [0, 1, -1], ids=["nothing", "one byte", "all but its end"])
def test_a_torn_last_line_is_measured_again(left: int, finished: Path, undisturbed: Path) -> None:
    lines = (finished / "results.jsonl").read_bytes().splitlines(keepends=True)
    [torn] = [line for line in lines if loaded(line)["name"] == "picture 1"]
    whole = [line for line in lines if line != torn]
    (finished / "results.jsonl").write_bytes(b"".join(whole) + torn[:left])
    watch = Watch()
    run(plan(), ALL, finished, on_step=watch)
    assert watch.searched == {"picture 1"}
    assert same_files(finished, undisturbed)


def test_a_first_line_may_be_torn(tmp_path: Path) -> None:
    Store(tmp_path, {})
    (tmp_path / "results.jsonl").write_bytes(b'{"index"')
    assert Store(tmp_path, {}).finished() == {}
    assert (tmp_path / "results.jsonl").read_bytes() == b""


def test_a_line_means_that_all_is_there(tmp_path: Path) -> None:
    for _ in plan().run(ALL, out=tmp_path, batch_size=2):
        for row in rows(tmp_path):
            if row["status"] != "failed":
                name = row["digest"][:16]
                assert Result.load(tmp_path / "tensors" / f"{name}.safetensors").digest == row["digest"]
                with Image.open(tmp_path / "samples" / f"{name}.png") as sheet:
                    sheet.load()


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(("owner", "step", "lines"), [(Image.Image, "save", 1), (os, "fsync", 2)])
def test_a_full_disk_is_told(
    owner: object, step: str, lines: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = plan().run(SOURCES, out=tmp_path, batch_size=1)
    next(results)
    monkeypatch.setattr(owner, step, full)
    with pytest.raises(
        InvMMError, match=r"could not be written to .*: No space left on device\. .*run the same command"
    ):
        next(results)
    assert len(rows(tmp_path)) == lines


def test_a_folder_that_vanishes_is_told(tmp_path: Path) -> None:
    results = plan().run(SOURCES, out=tmp_path / "out", batch_size=1)
    next(results)
    (tmp_path / "out").rename(tmp_path / "elsewhere")
    with pytest.raises(InvMMError, match=r"could not be written .*No such file"):
        next(results)


@pytest.mark.parametrize("place", ["file", "file/below", "out"])
def test_an_impossible_folder_is_told(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "tensors").touch()
    with pytest.raises(InvMMError, match=r"The folder .* cannot be used: \w.*\.$"):
        run(plan(), SOURCES[:1], tmp_path / place)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(InvMMError, match="cannot be used: No space left on device"):
        run(plan(), SOURCES[:1], tmp_path)


@pytest.mark.parametrize("content", [b"", b'{"seed": ', b"\xff\xfe", b"7", b"[1]"])
def test_a_damaged_config_is_told(content: bytes, finished: Path) -> None:
    (finished / "config.json").write_bytes(content)
    with pytest.raises(InvMMError, match=r"config\.json is damaged.*name another folder"):
        run(plan(), ALL, finished)


@pytest.mark.parametrize("content", [b"", b'{"index": 3, "dig', b"\xff\xfe", b"7", b"{}"])
def test_a_damaged_line_is_told_and_can_be_removed(content: bytes, finished: Path, undisturbed: Path) -> None:
    path = finished / "results.jsonl"
    first, second, *others = path.read_bytes().splitlines()
    lost = loaded(second)["name"]
    path.write_bytes(b"\n".join([first, content, *others, b""]))
    with pytest.raises(InvMMError, match=r"Line 2 of .*results\.jsonl is damaged; remove it"):
        run(plan(), ALL, finished)
    path.write_bytes(b"\n".join([first, *others, b""]))
    watch = Watch()
    run(plan(), ALL, finished, on_step=watch)
    assert watch.searched == {lost} - {"corrupt"}
    assert same_files(finished, undisturbed)


def test_a_lost_file_of_tensors_is_told(finished: Path) -> None:
    for path in (finished / "tensors").iterdir():
        path.unlink()
    with pytest.raises(InvMMError, match="safetensors is not a saved result"):
        run(plan(), ALL, finished)


def test_a_failed_image_is_measured_again_and_has_one_line(tmp_path: Path) -> None:
    file = tmp_path / "image.png"
    sources = [SOURCES[0], Source("image", file), CORRUPT]
    for _ in range(2):
        run(plan(), sources, tmp_path / "out")
        assert [(row["index"], row["status"]) for row in rows(tmp_path / "out")] == [
            (0, "replicated"),
            (1, "failed"),
            (2, "failed"),
        ]
    store = Store(tmp_path / "out", plan().config)
    assert [index for index, _ in store.finished()] == [0]
    assert [row["index"] for row in rows(tmp_path / "out")] == [0]

    Image.fromarray(PICTURES[1, 0].numpy()).save(file)
    watch = Watch()
    run(plan(), sources, tmp_path / "out", on_step=watch)
    assert watch.searched == {"image"}
    assert [(row["name"], row["status"]) for row in rows(tmp_path / "out")] == [
        ("picture 0", "replicated"),
        ("image", "replicated"),
        ("corrupt", "failed"),
    ]


def hand_made(**changes: Any) -> Result:
    check = Check(passed=False, similarities={1.0: (0.5, float("nan"))}, samples={1.0: torch.zeros(2, 1, 4, 4).byte()})
    result = Result(0, "n", Target(PICTURES[0]).digest, Status.EXHAUSTED, kl=1.0, check=check)
    return replace(result, trace=(Point(5, 0.1, 1.0, 1.0, float("-inf")),), **changes)


def test_failed_images_are_not_among_the_finished(tmp_path: Path) -> None:
    store = Store(tmp_path, {})
    store.add(hand_made(), Target(PICTURES[0]))
    store.add(Result(1, "bad", "", Status.FAILED, error="It broke."), None)
    store.add(Result(2, "late", "ab" * 32, Status.FAILED, error="It broke."), Target(PICTURES[1]))
    assert len(rows(tmp_path)) == 3
    for opened in (store, Store(tmp_path, {})):
        [(key, path)] = opened.finished().items()
        assert key == (0, hand_made().digest)
        assert Result.load(path).digest == hand_made().digest


def test_no_file_holds_infinity(tmp_path: Path, undisturbed: Path) -> None:
    Store(tmp_path, {}).add(hand_made(name="un\u2028usual\n"), Target(PICTURES[0]))
    for folder in (undisturbed, tmp_path):
        loaded((folder / "config.json").read_bytes())
        rows(folder)
        for path in (folder / "tensors").iterdir():
            with safe_open(path, "np") as file:
                loaded(file.metadata()["invmm"])
    assert {row["invmm"] for row in rows(undisturbed) if row["status"] == "exhausted"} == {None}
    assert [index for index, _ in Store(tmp_path, {}).finished()] == [0]


def test_the_same_picture_twice_has_two_lines(tmp_path: Path) -> None:
    sources = [Source("one", PICTURES[0]), SOURCES[3], Source("two", PICTURES[0])]
    found = run(plan(), sources, tmp_path, batch_size=3)
    first, other, second = rows(tmp_path)
    assert [first["name"], other["name"], second["name"]] == ["one", "picture 3", "two"]
    assert {**first, "index": 2, "name": "two"} == second
    watch = Watch()
    again = run(plan(), sources, tmp_path, on_step=watch)
    assert watch.searched == set()
    assert [(result.index, result.name, result.kl) for result in again] == [
        (result.index, result.name, result.kl) for result in found
    ]


def grey(*values: int) -> Tensor:
    """A picture of one row."""
    return torch.tensor([[values]], dtype=torch.uint8)


def test_a_strip_of_a_grey_image() -> None:
    sheet = strip(grey(1, 2), {1.0: torch.stack([grey(3, 4)]), 2.0: torch.stack([grey(5, 6), grey(7, 8)])})
    w = 255
    assert np.asarray(sheet).tolist() == [
        [1, 2, w, w, 3, 4, w, w, w, w],
        [w, w, w, w, w, w, w, w, w, w],
        [w, w, w, w, w, w, w, w, w, w],
        [w, w, w, w, 5, 6, w, w, 7, 8],
    ]
    assert sheet.mode == "L"


def test_a_strip_of_a_colour_image() -> None:
    generator = torch.Generator().manual_seed(0)
    image, *samples = torch.randint(0, 255, (9, 3, 4, 6), generator=generator, dtype=torch.uint8)
    sheet = strip(image, {1.0: torch.stack(samples[:2]), 3.0: torch.stack(samples[2:7]), 7.0: torch.stack(samples[7:])})
    assert (sheet.mode, sheet.size) == ("RGB", (6 * 6 + 5 * 2, 3 * 4 + 2 * 2))
    pixels = np.array(sheet)
    places = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (1, 3), (1, 4), (1, 5), (2, 1)]
    for picture, (row, column) in zip([image, *samples], places, strict=True):
        box = (column * 8, row * 6, column * 8 + 6, row * 6 + 4)
        assert np.array_equal(np.asarray(sheet.crop(box)).transpose(2, 0, 1), picture.numpy())
        pixels[box[1] : box[3], box[0] : box[2]] = 255
    assert (pixels == 255).all()


def test_the_strip_in_the_folder_is_that_of_the_samples(undisturbed: Path) -> None:
    path = next((undisturbed / "tensors").iterdir())
    result = Result.load(path)
    assert result.check is not None
    [samples] = result.check.samples.values()
    image = next(picture for picture in PICTURES if Target(picture).digest == result.digest)
    gap = torch.full((4, 2), 255, dtype=torch.uint8)
    row = torch.hstack([image[0], *(part for sample in samples for part in (gap, sample[0]))])
    with Image.open(undisturbed / "samples" / f"{path.stem}.png") as sheet:
        assert np.array_equal(np.asarray(sheet), row.numpy())


def test_a_folder_is_read_in_the_order_of_the_images_failed_ones_too(tmp_path: Path) -> None:
    store = Store(tmp_path, {"seed": 1})
    store.add(Result(2, "two", "", Status.FAILED, error="It is damaged."), None)
    store.add(Result(0, "zero", "", Status.FAILED, error="It is empty."), None)
    with (tmp_path / "results.jsonl").open("a") as lines:
        lines.write('{"index": 1, "status"')
    record = read(tmp_path)
    assert record.config == {"seed": 1}
    assert [row["name"] for row in record.rows] == ["zero", "two"]
    assert (tmp_path / "results.jsonl").read_text().endswith('"status"')


@pytest.mark.parametrize("config", [None, "[1"])
def test_a_folder_without_an_audit_is_told(tmp_path: Path, config: str | None) -> None:
    if config:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(InvMMError, match="holds no audit" if config is None else "is damaged"):
        read(tmp_path)
