"""The folder of an audit: that it can be gone on with, and says what it holds."""

import errno
import itertools
import json
import multiprocessing
import os
import resource
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from filelock import Timeout
from PIL import Image
from safetensors import safe_open

from invmm_eval.audits.folder import read, writing
from invmm_eval.audits.folder.files import in_use, lock_of, read_object, stem, tensors_of, write_object
from invmm_eval.audits.folder.requested import Requested
from invmm_eval.audits.folder.rows import line_of
from invmm_eval.audits.folder.writing import Store
from invmm_eval.audits.images import Source
from invmm_eval.audits.options import Output, Resources
from invmm_eval.audits.plan import OnStep, Plan
from invmm_eval.audits.results import count as by_verdict
from invmm_eval.errors import InvMMError
from invmm_eval.reports import report
from invmm_eval.search.records import saved_record
from invmm_eval.search.result import DOSE_RESPONSE, PLAIN_SHARE, Check, Point, Result, Status
from invmm_eval.search.search import Search
from invmm_eval.search.target import Target
from invmm_eval.statistics.response import Dose, Outcome, Response
from tests.helpers.audits import CONFIG, planned, run_plan
from tests.helpers.exact import Mixture, pictures

PICTURES = torch.cat([pictures(3), pictures(1, seed=99)])
SOURCES = [Source(f"picture {index}", picture) for index, picture in enumerate(PICTURES)]
CORRUPT = Source("corrupt", b"no image")
ALL = [*SOURCES[:2], CORRUPT, *SOURCES[2:]]
TIMES = ("seconds_steps", "seconds_checks", "finished", "sha256", "crc32")
"""What differs from run to run; the seconds are in the files of tensors too."""
SETTINGS: dict[str, Any] = {"max_steps": 80, "check_every": 5, "draws": 8}


def plan(**choices: Any) -> Plan:
    """An audit of a model that knows the first three pictures, and not the fourth."""
    given = {"similarity": "pixel-cosine", "settings": SETTINGS, **choices}
    return planned(Mixture(PICTURES[:3]), **given)


def loaded(text: str | bytes) -> Any:
    """Strict JSON: it knows neither infinity nor NaN."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} in a file")

    return json.loads(text, parse_constant=refuse)


def rows(folder: Path) -> list[dict[str, Any]]:
    """The last line of each image, and the record in its file, but for what differs from run to run, by index."""
    lines = map(loaded, (folder / "results.jsonl").read_bytes().splitlines())
    last = {row["index"]: row for row in lines}
    files = {row["index"]: tensors_of(folder, stem(row["digest"], row.get("caption"))) for row in last.values()}
    whole = {index: {**(saved_record(path) if path.exists() else {}), **last[index]} for index, path in files.items()}
    return [{key: value for key, value in whole[index].items() if key not in TIMES} for index in sorted(whole)]


def run(
    audit: Plan, sources: Sequence[Source], folder: Path, batch_size: int = 8, on_step: OnStep | None = None
) -> list[Result]:
    found = run_plan(audit, sources, Resources(batch_size=batch_size), out=folder, on_step=on_step)
    return sorted(found, key=lambda result: result.index)


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
            elif file.name not in ("results.jsonl", "images.json", "manifest.json"):
                yield file.name, file.read_bytes()

    return list(found(folder)) == list(found(other)) and rows(folder) == rows(other)


def test_the_config_is_written_once(tmp_path: Path) -> None:
    config = {"model": "m", "weights": "w", "recipe": {"guidance": (1.0, 2.5), "threshold": None}, "seed": 0}
    folder = tmp_path / "made" / "on the way"
    Store(folder, config).close()
    written = (folder / "config.json").read_bytes()
    config_on_disk = loaded(written)
    assert isinstance(config_on_disk.pop("crc32"), int)
    assert config_on_disk == {
        "format": 4,
        "model": "m",
        "weights": "w",
        "recipe": {"guidance": [1.0, 2.5], "threshold": None},
        "seed": 0,
    }
    Store(folder, dict(reversed(config.items()))).close()
    assert (folder / "config.json").read_bytes() == written
    assert not list(folder.glob("*.partial"))


@pytest.mark.parametrize(
    ("choices", "told"),
    [
        ({"seed": 1}, r"another config: seed is 0 there and 1 here\. Choose another folder"),
        ({"settings": {**SETTINGS, "draws": 9}}, r"recipe\.draws is 8 there and 9 here\."),
        ({"similarity": "ssim"}, r'similarity\.name is "pixel-cosine" there and "ssim" here; similarity\.'),
        ({"noise": "isotropic-gaussian"}, r'noise\.name is "diagonal-gaussian" there and "isotropic-gaussian" here'),
        ({"seed": 1, "settings": {}}, r"recipe\..* \(and 1 more\)\. Choose"),
    ],
)
def test_another_config_is_refused(finished: Path, choices: dict[str, Any], told: str) -> None:
    before = {path: path.read_bytes() for path in finished.rglob("*.*")}
    with pytest.raises(InvMMError, match=told):
        run(plan(**choices), ALL, finished)
    assert {path: path.read_bytes() for path in finished.rglob("*.*")} == before


@pytest.mark.parametrize("value", [float("inf"), float("nan"), Path("x"), np.int64(3)])
def test_a_config_that_is_no_json_is_told(tmp_path: Path, value: object) -> None:
    with pytest.raises(InvMMError, match="JSON cannot hold its config: "):
        Store(tmp_path, {"noise": {"rank": value}})


def interrupted_by_its_consumer(folder: Path, batch_size: int) -> None:
    results = run_plan(plan(), ALL, Resources(batch_size=batch_size), out=folder)
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
    Store(tmp_path, CONFIG).close()
    (tmp_path / "results.jsonl").write_bytes(b'{"index"')
    Store(tmp_path, CONFIG).close()
    assert list(read(tmp_path).rows) == []
    assert (tmp_path / "results.jsonl").read_bytes() == b""


def test_a_line_means_that_all_is_there(tmp_path: Path) -> None:
    for result in run_plan(plan(), ALL, Resources(batch_size=2), out=tmp_path):
        if result.check:
            wait_until_written(result)
            assert result.digest in [row["digest"] for row in read(tmp_path).rows]
        for row in read(tmp_path).rows:
            if row["status"] != "failed":
                name = row["digest"][:16]
                assert Result.load(tmp_path / "tensors" / name[:2] / f"{name}.safetensors").digest == row["digest"]
                with Image.open(tmp_path / "samples" / name[:2] / f"{name}.png") as sheet:
                    sheet.load()


def wait_until_written(result: Result) -> None:
    """Looking at tensors waits for the thread that writes them, and then their row."""
    assert result.noise["mu"].isfinite().all()


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(("owner", "step", "lines"), [(writing, "strip", 1), (os, "fsync", 1), (Path, "replace", 1)])
def test_a_full_disk_is_told(
    owner: object, step: str, lines: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = run_plan(plan(), SOURCES, Resources(batch_size=1), out=tmp_path)
    wait_until_written(next(results))
    working = getattr(owner, step)

    def failing(*arguments: Any, **options: Any) -> Any:
        """Full for files; a picture may be encoded in memory."""
        return working(*arguments, **options) if isinstance(arguments[1:] and arguments[1], BytesIO) else full()

    monkeypatch.setattr(owner, step, failing)
    with pytest.raises(
        InvMMError, match=r"could not be written to .*: No space left on device\. .*run the same command"
    ):
        list(results)
    assert len(rows(tmp_path)) == lines


def test_a_folder_that_vanishes_is_told(tmp_path: Path) -> None:
    results = run_plan(plan(), SOURCES, Resources(batch_size=1), out=tmp_path / "out")
    wait_until_written(next(results))
    (tmp_path / "out").rename(tmp_path / "elsewhere")
    with pytest.raises(InvMMError, match=r"could not be written .*No such file"):
        list(results)


@pytest.mark.parametrize("place", ["file", "file/below", "out"])
def test_an_impossible_folder_is_told(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "tensors").touch()
    with pytest.raises(InvMMError, match=r"The folder .* cannot be used: \w.*\.$"):
        run(plan(), SOURCES[:1], tmp_path / place)


@pytest.mark.parametrize("name", ["", b"out", 3, "a\0b", "x" * 300])
def test_what_names_no_folder_is_told(name: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvMMError, match=r"The folder of an audit is .*; give the path|The folder x+ cannot be used"):
        run(plan(), SOURCES[:1], name)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("content", [b"", b'{"seed": ', b"\xff\xfe", b"7", b"[1]"])
def test_a_damaged_config_is_told(content: bytes, finished: Path) -> None:
    (finished / "config.json").write_bytes(content)
    with pytest.raises(InvMMError, match=r"config\.json is damaged.*choose another folder"):
        run(plan(), ALL, finished)


@pytest.mark.parametrize("content", [b"", b'{"index": 3, "dig', b"\xff\xfe", b"7", b"{}", b"two"])
def test_a_damaged_line_is_told_and_can_be_removed(content: bytes, finished: Path, undisturbed: Path) -> None:
    path = finished / "results.jsonl"
    first, second, *others = path.read_bytes().splitlines()
    lost = loaded(second)["name"]
    content = content if content != b"two" else first + second
    path.write_bytes(b"\n".join([first, content, *others, b""]))
    with pytest.raises(InvMMError, match=r"Line 2 of .*results\.jsonl is damaged; remove it"):
        run(plan(), ALL, finished)
    path.write_bytes(b"\n".join([first, *others, b""]))
    watch = Watch()
    run(plan(), ALL, finished, on_step=watch)
    assert watch.searched == {lost} - {"corrupt"}
    assert same_files(finished, undisturbed)


def test_a_disk_that_is_full_amid_a_line_loses_no_other(tmp_path: Path, undisturbed: Path) -> None:
    """The limit on the size of files stands in for it: the line is cut where the limit is."""
    results = run_plan(plan(), ALL, Resources(batch_size=1), out=tmp_path)
    wait_until_written(next(results))
    size = (tmp_path / "results.jsonl").stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50, before[1]))
    try:
        with pytest.raises(InvMMError, match=r"could not be written to .*File too large.*run the same command"):
            list(results)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    torn = (tmp_path / "results.jsonl").read_bytes()
    assert len(torn) == size + 50 or torn.count(b"\n") == 1
    assert [row["name"] for row in read(tmp_path).rows] == ["picture 0"]
    run(plan(), ALL, tmp_path)
    assert same_files(tmp_path, undisturbed)


def flip(path: Path) -> None:
    """Change one bit in the middle of a file."""
    contents = bytearray(path.read_bytes())
    contents[-len(contents) // 4] ^= 1
    path.write_bytes(contents)


def test_a_flipped_bit_is_noticed_when_the_tensors_are_looked_at(finished: Path) -> None:
    [path] = finished.glob(f"tensors/*/{Target(PICTURES[1]).digest[:16]}.safetensors")
    flip(path)
    results = [result for result in run(plan(), ALL, finished) if result.check]
    for looked_at in ("noise", "condition", "check"):
        held = getattr(results[1], looked_at)
        with pytest.raises(InvMMError, match=f"{path.name} is not what the audit wrote: .*Remove it, and the same"):
            dict(held.samples if looked_at == "check" else held)
    assert [len(result.noise) for result in results if result.name != "picture 1"] == [2, 2, 2]
    [told] = read(finished).damaged()
    assert str(path) in told


def test_a_lost_file_of_tensors_is_measured_again_with_a_word(
    finished: Path, undisturbed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    [path] = finished.glob(f"tensors/*/{Target(PICTURES[1]).digest[:16]}.safetensors")
    path.unlink()
    [told] = read(finished).damaged()
    assert f"{path} cannot be read: No such file" in told
    watch = Watch()
    run(plan(), ALL, finished, on_step=watch)
    assert watch.searched == {"picture 1"}
    assert f"{path} is missing, so its image is measured again" in caplog.text
    assert same_files(finished, undisturbed)
    assert list(read(finished).damaged()) == []


def test_two_runs_cannot_write_to_one_folder(tmp_path: Path, undisturbed: Path) -> None:
    results = run_plan(plan(), ALL, out=tmp_path)
    next(results)
    assert read(tmp_path).progress.running
    with pytest.raises(InvMMError, match=r"Another run is writing to .*; wait for its end, or choose .*\.$"):
        run(plan(), ALL, tmp_path)
    list(results)
    assert not read(tmp_path).progress.running
    run(plan(), ALL, tmp_path)
    assert same_files(tmp_path, undisturbed)


def in_a_process(work: Callable[[], object]) -> int:
    """Do some work in a process of its own; its exit code."""
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


@pytest.mark.parametrize("step", [(os, "fsync"), (Path, "replace")])
def test_killed_at_each_step_of_writing_an_audit_goes_on_to_the_same_end(
    step: tuple[Any, str], tmp_path: Path, undisturbed: Path
) -> None:
    owner, name = step
    kills = 0

    def killed_at(count: int) -> None:
        calls = itertools.count(1)
        done = getattr(owner, name)

        def deadly(*arguments: Any, **options: Any) -> Any:
            if next(calls) == count:
                os.kill(os.getpid(), signal.SIGKILL)
            return done(*arguments, **options)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(owner, name, deadly)
            run(plan(), ALL, tmp_path)

    for count in itertools.chain(range(1, 9), itertools.repeat(9)):
        if in_a_process(lambda count=count: killed_at(count)) == 0:  # type: ignore[misc]
            break
        kills += 1
    assert kills > 4
    assert same_files(tmp_path, undisturbed)


def test_a_failed_image_is_measured_again_and_its_last_line_counts(tmp_path: Path) -> None:
    file = tmp_path / "image.png"
    sources = [SOURCES[0], Source("image", file), CORRUPT]
    for _ in range(2):
        run(plan(), sources, tmp_path / "out")
        assert [(row["index"], row["status"]) for row in rows(tmp_path / "out")] == [
            (0, "replicated"),
            (1, "failed"),
            (2, "failed"),
        ]
    Image.fromarray(PICTURES[1, 0].numpy()).save(file)
    watch = Watch()
    run(plan(), sources, tmp_path / "out", on_step=watch)
    assert watch.searched == {"image"}
    assert [(row["name"], row["status"]) for row in read(tmp_path / "out").rows] == [
        ("picture 0", "replicated"),
        ("image", "replicated"),
        ("corrupt", "failed"),
    ]


def hand_made(**changes: Any) -> Result:
    """With values that JSON does not know, and a name with the end of a line of Unicode."""
    check = Check(passed=False, similarities={1.0: (0.5, float("nan"))}, samples={1.0: torch.zeros(2, 1, 4, 4).byte()})
    result = Result(0, "un\u2028usual\n", Target(PICTURES[0]).digest, Status.EXHAUSTED, kl=1.0, check=check)
    return replace(result, trace=(Point(5, 0.1, 1.0, 1.0, float("-inf")),), **changes)


def test_a_row_is_short_whatever_the_search(tmp_path: Path) -> None:
    """What a row leaves out is read from the file of tensors, once it is looked at."""
    trace = tuple(Point(50 * step, 0.1234567 / step, step / 30, 1 / step, step / 70) for step in range(1, 41))
    check = Check(False, {scale / 2: (1 / 3,) * 8 for scale in range(7)}, {0.5: torch.zeros(8, 1, 4, 4).byte()})
    outcomes = tuple(Outcome(step / 7, step > 150) for step in range(200))
    share: dict[str, Any] = dict.fromkeys(("share", "low", "high", "relative_error", "plain_guidance"), 1 / 30)
    share |= dict.fromkeys(("copies", "samples", "plain_copies", "plain_samples"), 1234)
    estimates = {DOSE_RESPONSE: Response(outcomes).values(), PLAIN_SHARE: share}
    found = hand_made(check=check, estimates=estimates, name="0123/a picture.png", kl=1 / 3, dimensions=16384)
    full = replace(found, trace=trace, prompt=" ".join(["token"] * 75), rows=19200, picture_bits=1_676_000)
    with Store(tmp_path, CONFIG) as store:
        store.add(replace(full, seconds_steps=1 / 3, seconds_checks=1 / 3), Target(PICTURES[0]))
    assert (tmp_path / "results.jsonl").stat().st_size < 1000
    record = read(tmp_path)
    [result] = map(record.result, record.rows)
    assert (result.verdict, result.similarity, result.ed50) == (full.verdict, full.similarity, full.ed50)
    [path] = tmp_path.glob("tensors/*/*")
    content = path.read_bytes()
    path.write_bytes(content.replace(b"0.1234567", b"0.1234568"))
    assert record.result(record.rows[0]).words == full.words
    with pytest.raises(InvMMError, match=rf"{path.name} is not what the audit wrote; remove it"):
        len(record.result(record.rows[0]).trace)
    path.write_bytes(content)
    assert {**result.record(), "seconds_steps": 0.0, "seconds_checks": 0.0} == full.record()
    path.unlink()
    gone = record.result(record.rows[0])
    assert (gone.trace, gone.response, gone.ed50) == ((), None, full.ed50)
    assert (gone.prompt, gone.words) == ("", full.words)


@pytest.mark.parametrize("keep", ["all", "nothing"])
@pytest.mark.parametrize(("prompt", "caption"), [(None, "a cat"), ("a cat", "a cat"), ("", None), ("", ""), ("a", "b")])
def test_the_prompt_of_a_row_is_its_caption_or_in_its_file(
    keep: str, prompt: str | None, caption: str | None, tmp_path: Path
) -> None:
    given = hand_made(prompt=prompt, caption=caption)
    with Store(tmp_path, CONFIG, keep=keep) as store:
        assert store.add(given, Target(PICTURES[0], "n", caption)).prompt == prompt
    record = read(tmp_path)
    [result] = map(record.result, record.rows)
    assert replace(result, index=0).prompt == ("" if (prompt, keep) == ("a", "nothing") else prompt)
    [row] = (tmp_path / "results.jsonl").read_bytes().splitlines()
    assert row.count(b"a cat") == (1 if caption == "a cat" else 0)


def test_a_row_of_format_3_has_the_prompt(tmp_path: Path) -> None:
    with Store(tmp_path, CONFIG):
        pass
    more = {"prompt": "a b", "sha256": None, "finished": "2026-01-01T00:00Z", "format": 3}
    (tmp_path / "results.jsonl").write_bytes(line_of({**hand_made(prompt="a b").row(), **more}))
    record = read(tmp_path)
    assert [record.result(row).prompt for row in record.rows] == ["a b"]


def test_a_row_of_format_2_has_how_the_search_went(tmp_path: Path) -> None:
    full = hand_made(estimates={DOSE_RESPONSE: {"outcomes": [[1.0, True], [0.5, False]]}})
    values = {"ed50": [2.0, 1.0, 4.0], "ed90": None, "caption": None, "sha256": None, "finished": "2026-01-01T00:00Z"}
    with Store(tmp_path, CONFIG):
        pass
    written = {**replace(full, estimates={}).record(), "estimates": full.estimates, **values, "format": 2}
    (tmp_path / "results.jsonl").write_bytes(line_of(written))
    record = read(tmp_path)
    [result] = map(record.result, record.rows)
    assert (result.trace[0][:4], result.ed50, result.ed90) == (full.trace[0][:4], Dose(2.0, 1.0, 4.0), None)
    assert result.response == Response((Outcome(1.0, True), Outcome(0.5, False)))
    assert repr(result.check and result.check.similarities) == repr(full.check and full.check.similarities)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_same_picture_twice_is_searched_once_and_has_two_lines(batch_size: int, tmp_path: Path) -> None:
    sources = [Source("one", PICTURES[0]), SOURCES[3], Source("two", PICTURES[0]), Source("one", PICTURES[0])]
    watch = Watch()
    audit = plan()
    found = run(audit, sources, tmp_path, batch_size=batch_size, on_step=watch)
    assert watch.searched == {"one", "picture 3"}
    first, _, *others = rows(tmp_path)
    assert [(row["index"], row["name"]) for row in others] == [(2, "two"), (3, "one")]
    assert [{**row, "index": 0, "name": "one"} for row in others] == [first] * 2
    assert len({row["sha256"] for row in read(tmp_path).rows}) == 2
    assert len(list(tmp_path.glob("tensors/*/*"))) == 2
    again = run(plan(), sources, tmp_path, on_step=watch)
    assert watch.searched == {"one", "picture 3"}
    for results in (found, again):
        assert [(result.index, result.name) for result in results] == [
            (0, "one"),
            (1, "picture 3"),
            (2, "two"),
            (3, "one"),
        ]
        assert all(torch.equal(results[0].noise[name], results[2].noise[name]) for name in ("mu", "logvar"))
    next(tmp_path.glob(f"tensors/*/{results[0].digest[:16]}*")).unlink()
    run(plan(), sources, tmp_path)
    assert list(read(tmp_path).damaged()) == []


def test_the_same_picture_with_another_caption_is_another(tmp_path: Path) -> None:
    captions = (None, "a cat", "a dog")
    targets = [Target(PICTURES[0], "same", caption) for caption in captions]
    with Store(tmp_path, CONFIG) as store:
        for index, target in enumerate(targets):
            assert not store.knows(index, target)
            store.add(hand_made(index=index, name="same", noise={"mean": torch.full((1,), float(index))}), target)
        assert all(store.knows(index, target) for index, target in enumerate(targets))
        assert [store.result(index).noise["mean"].item() for index in range(3)] == [0, 1, 2]
    record = read(tmp_path)
    assert [row["caption"] for row in record.rows] == [*captions]
    assert [record.result(row).noise["mean"].item() for row in record.rows] == [0, 1, 2]
    assert len({record.picture(row) for row in record.rows if record.picture(row).is_file()}) == 3


def test_images_that_came_left_or_were_renamed_are_known_by_their_pixels(finished: Path, undisturbed: Path) -> None:
    audit, watch = plan(), Watch()
    new = Source("new", pictures(1, seed=5)[0])
    renamed = Source("renamed", SOURCES[2].value)
    run(audit, [new, SOURCES[1], renamed], finished, on_step=watch)
    assert watch.searched == {"new"}
    assert [(row["index"], row["name"]) for row in read(finished).rows] == [
        (0, "new"),
        (1, "picture 1"),
        (2, "renamed"),
    ]
    assert read(finished).progress.images == 3
    again = Watch()
    run(plan(), ALL, finished, on_step=again)
    assert again.searched == set()
    names = [row["name"] for row in read(finished).rows]
    assert names == [source.name for source in ALL]
    assert rows(finished) == rows(undisturbed)


def test_progress(finished: Path, tmp_path: Path) -> None:
    now = read(finished).progress
    results = [read(finished).result(row) for row in read(finished).rows]
    assert now.counts == by_verdict(results) == {"memorized": 3, "replicable": 0, "not replicated": 1, "failed": 1}
    assert (now.images, now.done, now.running) == (5, 4, False)

    names = [str(number) for number in range(10)]
    with Store(tmp_path, CONFIG, Requested.now(names)) as store:
        none = read(tmp_path).progress
        assert (none.images, none.waiting, none.rate, none.left, none.running) == (10, 10, None, None, True)
        for index in range(4):
            store.add(Result(index, str(index), "", Status.FAILED, error="It broke."), None)
    asked = read_object(tmp_path / "images.json")
    start = datetime(2030, 1, 1, tzinfo=UTC)
    write_object(tmp_path / "images.json", {**asked, "asked": start.isoformat()})
    lines = [loaded(line) for line in (tmp_path / "results.jsonl").read_bytes().splitlines()]
    for line, minute in zip(lines, (-90, 10, 20, 40), strict=True):  # the first is of a session before
        line["finished"] = (start + timedelta(minutes=minute)).isoformat()
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    later = read(tmp_path).progress
    assert (later.failed, later.waiting, later.running) == (4, 6, False)
    assert later.rate == pytest.approx(3 / (40 * 60))
    assert later.left == timedelta(minutes=80)


def test_the_strip_in_the_folder_is_that_of_the_samples(undisturbed: Path) -> None:
    path = next(undisturbed.glob("tensors/*/*"))
    result = Result.load(path)
    assert result.check is not None
    [samples] = result.check.samples.values()
    image = next(picture for picture in PICTURES if Target(picture).digest == result.digest)
    gap = torch.full((4, 2), 255, dtype=torch.uint8)
    row = torch.hstack([image[0], *(part for sample in samples for part in (gap, sample[0]))])
    with Image.open(undisturbed / "samples" / path.parent.name / f"{path.stem}.png") as sheet:
        assert np.array_equal(np.asarray(sheet), row.numpy())


def test_a_folder_is_read_in_the_order_of_the_images_failed_ones_too(tmp_path: Path) -> None:
    with Store(tmp_path, {"seed": 1}) as store:
        store.add(Result(2, "two", "", Status.FAILED, error="It is damaged."), None)
        store.add(Result(0, "zero", "", Status.FAILED, error="It is empty."), None)
    with (tmp_path / "results.jsonl").open("a") as lines:
        lines.write('{"index": 1, "status"')
    record = read(tmp_path)
    assert record.config == {"format": 4, "seed": 1}
    assert [row["name"] for row in record.rows] == ["zero", "two"]
    assert (tmp_path / "results.jsonl").read_text().endswith('"status"')


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_flock_has_a_lock_too(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with lock_of(tmp_path):
        pass

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    assert not in_use(tmp_path)
    with lock_of(tmp_path):
        assert in_use(tmp_path)
        with pytest.raises(Timeout):
            lock_of(tmp_path).acquire(timeout=0)
    assert not in_use(tmp_path)


class Gate:
    """Holds up the thread that writes results, at each line of their file, until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened = threading.Event()
        append = Store._append

        def held_up(store: Store, *row: Any) -> None:
            self.opened.wait()
            append(store, *row)

        monkeypatch.setattr(Store, "_append", held_up)


def test_results_are_yielded_while_they_are_written_and_closing_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: Path
) -> None:
    gate = Gate(monkeypatch)
    results = run_plan(plan(), ALL, Resources(batch_size=1), out=tmp_path)
    names = [next(results).name for _ in ALL]
    assert not list(read(tmp_path).rows)
    gate.opened.set()
    assert next(results, None) is None
    lines = (tmp_path / "results.jsonl").read_bytes().splitlines()
    assert [loaded(line)["name"] for line in lines] == names
    assert same_files(tmp_path, undisturbed)


@pytest.mark.parametrize("ending", [KeyboardInterrupt, RuntimeError, GeneratorExit])
def test_however_a_run_ends_what_was_found_is_written(
    ending: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)

    def run_that_ends() -> None:
        with Store(tmp_path, CONFIG) as store:
            for index, picture in enumerate(PICTURES[:3]):
                target = Target(picture, "n")
                store.add(hand_made(index=index, digest=target.digest), target)
            threading.Timer(0.1, gate.opened.set).start()
            raise ending

    with pytest.raises(ending):
        run_that_ends()
    assert [row["index"] for row in rows(tmp_path)] == [0, 1, 2]
    Store(tmp_path, CONFIG).close()  # the folder is free


def test_only_a_few_results_wait_to_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, added = Gate(monkeypatch), itertools.count()
    many = pictures(20)

    def add() -> None:
        with Store(tmp_path, CONFIG) as store:
            for index, picture in enumerate(many):
                store.add(hand_made(index=index, digest=Target(picture).digest), Target(picture, "n"))
                next(added)

    thread = threading.Thread(target=add)
    thread.start()
    thread.join(1)
    assert next(added) < 10
    gate.opened.set()
    thread.join()
    assert len(rows(tmp_path)) == 20


def test_a_picture_that_is_being_written_is_known_once_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, target = Gate(monkeypatch), Target(PICTURES[0], "n")
    with Store(tmp_path, CONFIG) as store:
        store.add(hand_made(), target)
        threading.Timer(0.1, gate.opened.set).start()
        assert store.knows(0, target)


def test_an_unexpected_error_of_the_thread_keeps_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("a fault of the writer")

    monkeypatch.setattr(Store, "_append", broken)
    with pytest.raises(ZeroDivisionError, match="a fault of the writer"), Store(tmp_path, CONFIG) as store:
        store.add(hand_made(), Target(PICTURES[0], "n"))


@pytest.mark.parametrize(("keep", "files"), [("all", 4), ("replicated", 3), ("nothing", 0)])
def test_files_are_kept_of_the_images_that_were_asked_for_and_rows_of_all(
    keep: Literal["all", "replicated", "nothing"], files: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = list(run_plan(plan(), SOURCES, out=tmp_path, output=Output(keep=keep)))
    record = read(tmp_path)
    assert record.progress.counts == {"memorized": 3, "replicable": 0, "not replicated": 1, "failed": 0}
    for part in ("tensors", "samples"):
        assert len([path for path in (tmp_path / part).rglob("*") if path.is_file()]) == files
    kept = [result for result in map(record.result, record.rows) if result.noise]
    assert len(kept) == files
    assert sum(result.picture is not None for result in first) == files
    assert list(record.damaged()) == []
    lines = (tmp_path / "results.jsonl").read_bytes()
    again = list(run_plan(plan(), SOURCES, out=tmp_path))
    assert (tmp_path / "results.jsonl").read_bytes() == lines, "what is not kept is not missing"
    assert [result.invmm for result in again] == [result.invmm for result in sorted(first, key=lambda one: one.index)]
    assert "missing" not in caplog.text
    assert report(tmp_path).read_text().count('"picture": "data:image/webp') == files
