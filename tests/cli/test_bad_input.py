"""Mistakes of users, each through the real command line: exit code 1 and one sentence.

Here is one case for each way in which a mistake reaches the command line, and those that only a whole run shows. What
images, models, options and folders are refused for is tested with the module that refuses it.
"""

import json
import re
import shutil
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image
from safetensors.torch import load_file, save_file

from invmm_eval.audits.folder import read
from tests.helpers.audits import CONFIG
from tests.helpers.command import SET, Invoke

Arguments = dict[str, Any]
"""Options of ``run`` by name; a list repeats one."""
Change = Callable[[Path, Arguments], object]
"""Turns a run that works into a mistake: files in a folder, or options."""

NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
WEIGHTS = Path("model/unet/diffusion_pytorch_model.safetensors")


@pytest.fixture
def arguments(tiny_folder: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Arguments:
    """A command that works: a copy of the tiny model, two images, an output folder; no Hub."""
    assert images == tmp_path / "images"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    shutil.copytree(tiny_folder, tmp_path / "model")
    return {"model": "model", "images": "images", "out": "out"}


def run(invoke: Invoke, arguments: Arguments) -> tuple[int, str, str]:
    parts: list[object] = ["run", *SET]
    for name, value in arguments.items():
        for one in value if isinstance(value, list) else [value]:
            parts += [f"--{name}", one]
    return invoke(*parts)


def encoded(kind: str, image: Image.Image | None = None) -> bytes:
    file = BytesIO()
    (image or Image.fromarray(NOISE)).save(file, kind)
    return file.getvalue()


def option(**options: Any) -> Change:
    """Other options; an underscore stands for a hyphen."""
    return lambda _, arguments: arguments.update({name.replace("_", "-"): value for name, value in options.items()})


def image(contents: bytes, name: str = "bad.png") -> Change:
    """The folder of images holds only this file."""

    def change(folder: Path, _: Arguments) -> None:
        shutil.rmtree(folder / "images")
        (folder / "images").mkdir()
        (folder / "images" / name).write_bytes(contents)

    return change


def file(name: str | Path, contents: bytes | None) -> Change:
    """A file holds something else, or is missing."""

    def change(folder: Path, _: Arguments) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).unlink(missing_ok=True)
        if contents is not None:
            (folder / name).write_bytes(contents)

    return change


def weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Change:
    def change_file(folder: Path, _: Arguments) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS)

    return change_file


def link_to_itself(folder: Path, arguments: Arguments) -> None:
    image(b"")(folder, arguments)
    (folder / "images" / "bad.png").unlink()
    (folder / "images" / "bad.png").symlink_to("bad.png")


def damaged_table(folder: Path, arguments: Arguments) -> None:
    (folder / "table.parquet").write_bytes(b"PAR1 and no more")
    arguments["images"] = "dataset:table.parquet"


def locked(folder: Path, arguments: Arguments) -> None:
    (folder / "out").mkdir()
    lock = arguments["lock"] = FileLock(folder / "out" / ".lock")
    lock.acquire()


REFUSED = r"The image '.*images/bad\.\w+' cannot be used: "
LOSS = r"The model's estimates of x_0 are not finite; .*"

MISTAKES: dict[str, tuple[Change, str]] = {
    # an image that cannot be read
    "empty file": (image(b""), REFUSED + r"it is empty\."),
    "link to itself": (link_to_itself, REFUSED + r"Too many levels of symbolic links\."),
    # images that are not found
    "no such images": (option(images="nowhere[red]"), r"The file or folder 'nowhere\[red\]' cannot be opened: .*"),
    "damaged dataset": (damaged_table, "The split 'train' of the dataset 'table.parquet' cannot be loaded: .*"),
    # a model that cannot be used
    "no such model": (option(model="./nowhere[/x]"), r"There is no folder \./nowhere\[/x\]\."),
    "file as a model": (option(model="model/model_index.json"), ".*model/model_index.json.*"),
    "a weight is missing": (
        weights(lambda tensors: tensors.pop("conv_in.weight")),
        r"model cannot be loaded: its weights lack unet\.conv_in\.weight\.",
    ),
    "weights that are NaN": (weights(lambda tensors: tensors["conv_in.weight"].fill_(torch.nan)), LOSS),
    "damaged configuration": (file("model/unet/config.json", b"{"), "model cannot be loaded: .+"),
    "no scheduler": (file("model/scheduler/scheduler_config.json", None), "model cannot be loaded: .+"),
    # options that do not exist or do not fit
    "unknown setting": (option(set="speed=3"), "'speed=3' is not KEY=VALUE with KEY one of .*check_every, .*"),
    "setting of another type": (option(set="draws=many"), "'many' is not a valid value .*draws."),
    "no KEY=VALUE": (option(noise_option="rank"), "'rank' is not KEY=VALUE."),
    # a folder that cannot be written to
    "file as output": (
        option(out="model/model_index.json"),
        r"The folder .* cannot be used: (File exists|Not a directory)\.",
    ),
    "another audit": (file("out/config.json", b"{}"), "out holds an audit with another config: .*"),
    "in use": (locked, "Another run is writing to out; .*"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence(mistake: str, invoke: Invoke, arguments: Arguments, tmp_path: Path) -> None:
    change, sentence = MISTAKES[mistake]
    change(tmp_path, arguments)
    lock = arguments.pop("lock", None)
    code, _, err = run(invoke, arguments)
    del lock
    *_, last = err.splitlines()
    assert code == 1, err
    reason = "(The image could not be measured|All 2 images failed for the same reason): "
    assert re.fullmatch(f"error ({reason})?{sentence}", last), last
    assert "Traceback" not in err


def test_odd_but_good_images_are_measured(invoke: Invoke, arguments: Arguments, tmp_path: Path) -> None:
    odd = {
        "one pixel.png": encoded("PNG", Image.new("RGB", (1, 1), "teal")),
        "two\nlines.png": encoded("PNG"),
        "größe 画像 🙂 \u202e.png": encoded("PNG"),
        "[red]a[red] $(rm) %s {0}.png": encoded("PNG"),
        "of another kind.png": encoded("JPEG"),
        b"a\xff.png".decode("utf-8", "surrogateescape"): encoded("PNG"),
        ".hidden.png": b"",
    }
    for name, contents in odd.items():
        (tmp_path / "images" / name).write_bytes(contents)
    for _ in range(2):
        code, out, err = run(invoke, arguments)
        assert (code, "Traceback" in err) == (0, False), err
        assert "Of 8 images: 0 memorized, 0 replicable, 8 not replicated, 0 failed." in out
    expected = {"a\\udcff.png" if "\udcff" in name else name for name in odd if name[0] != "."}
    assert {row["name"] for row in read("out").rows} == expected | {"a.png", "b.png"}


def test_files_of_one_name_in_several_folders_are_different_images(
    invoke: Invoke, arguments: Arguments, tmp_path: Path
) -> None:
    for number, name in enumerate(("x/a.png", "x/a.jpg", "y/a.png", "z/a.png")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.roll(NOISE, number, axis=0)).save(tmp_path / name, "PNG")
    arguments["images"] = ["x", "y", "z"]
    for _ in range(2):
        assert run(invoke, arguments)[0] == 0
        assert [row["name"] for row in read("out").rows] == ["a.jpg", "a.png", "a.png", "a.png"]
        assert len({row["digest"] for row in read("out").rows}) == 4
        assert (tmp_path / "out" / "results.jsonl").read_bytes().count(b"\n") == 4


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({}, "out holds no audit that can be read: .*config.json: No such file or directory."),
        ({"config.json": "{}"}, "out/config.json is damaged, .*; choose another folder."),
        ({"config.json": json.dumps(CONFIG), "results.jsonl": " null\n"}, "Line 1 of out/results.jsonl is damaged; .*"),
    ],
)
def test_the_status_of_no_audit(
    files: dict[str, str], sentence: str, invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in files.items():
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / name).write_text(text)
    code, out, err = invoke("status", "out")
    assert (code, out) == (1, "")
    assert re.fullmatch(f"error {sentence}\n", err)
