"""What people give by mistake: each through the real command line, with its exit code and its sentence."""

import json
import re
import shutil
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image
from safetensors.torch import load_file, save_file

from invmm_eval.audits.folder import read
from tests.helpers.command import SET, Invoke

Given = dict[str, Any]
"""Options of ``run`` by name; a list repeats one."""
Make = Callable[[Path, Given], None]

NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


@pytest.fixture
def given(tiny_folder: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Given:
    """A command that works: a copy of the tiny model, two images, an output folder; no Hub."""
    assert images == tmp_path / "images"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    shutil.copytree(tiny_folder, tmp_path / "model")
    return {"model": "model", "images": "images", "out": "out"}


def run(invoke: Invoke, given: Given) -> tuple[int, str, str]:
    parts: list[object] = ["run", *SET]
    for name, value in given.items():
        for one in value if isinstance(value, list) else [value]:
            parts += [f"--{name}", one]
    return invoke(*parts)


def encoded(kind: str, image: Image.Image | None = None, **options: Any) -> bytes:
    file = BytesIO()
    (image or Image.fromarray(NOISE)).save(file, kind, **options)
    return file.getvalue()


def content(contents: bytes, name: str = "bad.png") -> Make:
    """The folder of images holds just this file."""

    def make(place: Path, _: Given) -> None:
        shutil.rmtree(place / "images")
        (place / "images").mkdir()
        (place / "images" / name).write_bytes(contents)

    return make


def link(to: str) -> Make:
    def make(place: Path, given: Given) -> None:
        content(b"")(place, given)
        (place / "images" / "bad.png").unlink()
        (place / "images" / "bad.png").symlink_to(to)

    return make


def changed(**options: Any) -> Make:
    """Options that are given, or given otherwise; an underscore stands for a hyphen."""

    def make(_: Path, given: Given) -> None:
        given.update({name.replace("_", "-"): value for name, value in options.items()})

    return make


def model_file(name: str, contents: bytes | None) -> Make:
    """A file of the model is gone, or holds something else."""

    def make(place: Path, _: Given) -> None:
        (place / "model" / name).unlink()
        if contents is not None:
            (place / "model" / name).write_bytes(contents)

    return make


def model_json(name: str, **values: object) -> Make:
    def make(place: Path, _: Given) -> None:
        path = place / "model" / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return make


WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


def weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Make:
    def make(place: Path, _: Given) -> None:
        tensors = load_file(place / "model" / WEIGHTS)
        change(tensors)
        save_file(tensors, place / "model" / WEIGHTS)

    return make


def class_conditional(place: Path, given: Given) -> None:
    model_json("unet/config.json", num_class_embeds=10)(place, given)
    weights(lambda tensors: tensors.update({"class_embedding.weight": torch.zeros(10, 32)}))(place, given)


def pickled(place: Path, _: Given) -> None:
    torch.save(load_file(place / "model" / WEIGHTS), place / "model" / "unet" / "diffusion_pytorch_model.bin")
    (place / "model" / WEIGHTS).unlink()


def truncated_weights(place: Path, _: Given) -> None:
    contents = (place / "model" / WEIGHTS).read_bytes()
    (place / "model" / WEIGHTS).write_bytes(contents[: len(contents) // 2])


def unreadable(place: Path, given: Given) -> None:
    """Tests may run as root, whom no permission stops, so the refusal is made."""
    content(encoded("PNG"))(place, given)
    given["patch"].setattr(Path, "read_bytes", refused)


def refused(path: Path) -> bytes:
    if path.suffix == ".png":
        raise PermissionError(13, "Permission denied")
    with path.open("rb") as file:
        return file.read()


def table(place: Path, given: Given) -> None:
    datasets.Dataset.from_dict({"label": ["a"]}).to_parquet(place / "table.parquet")
    given["images"] = "dataset:table.parquet"


def damaged_table(place: Path, given: Given) -> None:
    (place / "table.parquet").write_bytes(b"PAR1 and no more")
    given["images"] = "dataset:table.parquet"


def missing_column(place: Path, given: Given) -> None:
    table(place, given)
    given["images"] = "dataset:table.parquet:train:photo"


def missing_split(place: Path, given: Given) -> None:
    table(place, given)
    given["images"] = "dataset:table.parquet:test"


def empty(place: Path, _: Given) -> None:
    shutil.rmtree(place / "images")
    (place / "images").mkdir()


def hidden(place: Path, _: Given) -> None:
    (place / "images" / ".cut.png").write_bytes(b"")


def only_folders(place: Path, _: Given) -> None:
    shutil.rmtree(place / "images")
    (place / "images" / "album.png").mkdir(parents=True)


def out_file(name: str, contents: str) -> Make:
    def make(place: Path, _: Given) -> None:
        (place / "out").mkdir()
        (place / "out" / name).write_text(contents)

    return make


def locked(place: Path, given: Given) -> None:
    (place / "out").mkdir()
    given["lock"] = FileLock(place / "out" / ".lock")
    given["lock"].acquire()


def out_below_a_file(place: Path, given: Given) -> None:
    (place / "file").touch()
    given["out"] = "file/out"


HUGE = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
HUGE += struct.pack(">I", zlib.crc32(HUGE[12:])) + encoded("PNG")[33:]
USED = r"The image 'images/bad\.\w+' cannot be used: "
NO_IMAGE = USED + r"it is damaged, or of no image format that Pillow reads\."
PICKLE = "model has no usable safetensors weights, and pickled ones are never loaded.*save_pretrained.*"
LOSS = r"The loss became (nan|inf) at step 1; try float32, or check the model's weights\."

MISTAKES: dict[str, tuple[Make, str]] = {
    # an image that is none
    "empty file": (content(b""), USED + r"it is empty\."),
    "text named png": (content(b"a shopping list\n"), NO_IMAGE),
    "web page named jpg": (content(b"<!DOCTYPE html><html></html>", "bad.jpg"), NO_IMAGE),
    "zip named webp": (content(b"PK\x03\x04" + bytes(60), "bad.webp"), NO_IMAGE),
    "zeros": (content(bytes(5000)), NO_IMAGE),
    "only a signature": (content(encoded("PNG")[:8]), USED + r".+\."),
    "cut PNG": (content(encoded("PNG")[:-3000]), USED + r".*truncated.*\."),
    "cut JPEG": (content(encoded("JPEG")[:-700], "bad.jpg"), USED + r".*truncated.*\."),
    "cut GIF": (content(encoded("GIF")[:-2000], "bad.gif"), USED + r".*truncated.*\."),
    "cut WebP": (content(encoded("WEBP", lossless=True)[:-2000], "bad.webp"), USED + r".+\."),
    "cut TIFF": (content(encoded("TIFF")[:-2000], "bad.tiff"), USED + r".+\."),
    "cut BMP": (content(encoded("BMP")[:-2000], "bad.bmp"), USED + r".*truncated.*\."),
    "damaged PNG": (content(encoded("PNG").replace(b"IHDR", b"IHDX", 1)), USED + r".+\."),
    "more pixels than are opened": (content(HUGE), USED + r"it has more pixels than Pillow opens; scale it down\."),
    "floats out of range": (
        content(encoded("TIFF", Image.fromarray(np.full((4, 4), 7, np.float32))), "bad.tiff"),
        USED + r"its values are not all in \[0, 1\]; scale them\.",
    ),
    "integers out of range": (
        content(encoded("TIFF", Image.fromarray(np.full((4, 4), 70_000, np.int32))), "bad.tiff"),
        USED + r"its values are int32; give uint8, uint16, bool, or floats in \[0, 1\]\.",
    ),
    "PostScript": (content(encoded("EPS"), "bad.png"), USED + r"it is PostScript.*convert it to PNG\."),
    "link to nothing": (link("gone"), USED + r"No such file or directory\."),
    "link to itself": (link("bad.png"), USED + r"Too many levels of symbolic links\."),
    "unreadable file": (unreadable, USED + r"Permission denied\."),
    # images that are not there
    "no such images": (changed(images="gone"), "The file or folder 'gone' cannot be opened: No such file .*"),
    "name with a zero byte": (changed(images="a\0b"), r"The file or folder 'a\\x00b' cannot be opened: .*"),
    "name too long": (changed(images="a" * 300), "The file or folder 'a+' cannot be opened: File name too long."),
    "empty folder": (empty, "The folder 'images' holds no image file .*"),
    "folder of other files": (content(b"", "notes.txt"), "The folder 'images' holds no image file .*"),
    "folder of folders": (only_folders, "The folder 'images' holds no image file .*"),
    "no such data set": (
        changed(images="dataset:gone"),
        "The split 'train' of the dataset 'gone' cannot be loaded: .*",
    ),
    "no name of a data set": (changed(images="dataset:"), "'dataset:' does not read dataset:NAME, .*"),
    "data set without images": (
        table,
        r"'table.parquet\[train\]' has no images in any column; its columns are label\.",
    ),
    "no such column": (missing_column, r"'table.parquet\[train\]' has no images in photo; its columns are label\."),
    "no such split": (missing_split, "The split 'test' of the dataset 'table.parquet' cannot be loaded: .*"),
    "damaged data set": (damaged_table, "The split 'train' of the dataset 'table.parquet' cannot be loaded: .*"),
    # a model that cannot be used
    "no such model": (changed(model="./gone"), r"There is no folder \./gone\."),
    "no such model on the Hub": (
        changed(model="org/gone"),
        "org/gone is neither a folder here nor a diffusers pipeline .*",
    ),
    "file as a model": (changed(model="model/model_index.json"), ".*model/model_index.json.*"),
    "folder without a model": (changed(model="images"), r"images has no model_index.json; name the folder .*"),
    "damaged index": (model_file("model_index.json", b"{"), "The model_index.json of model is damaged: .*"),
    "index without a class": (model_file("model_index.json", b"{}"), "The model_index.json of model is damaged: .*"),
    "unknown class": (
        model_json("model_index.json", _class_name="SomePipeline"),
        "No backbone loads the pipeline class SomePipeline.*",
    ),
    "own code": (
        model_json("model_index.json", _class_name=["pipeline", "Mine"]),
        "model brings its own pipeline code, .*",
    ),
    "no weights": (model_file(WEIGHTS, None), PICKLE),
    "pickled weights": (pickled, PICKLE),
    "cut weights": (truncated_weights, PICKLE),
    "no safetensors": (model_file(WEIGHTS, b"not weights"), "model .+"),
    "weights of another shape": (
        weights(lambda w: w.update({"conv_in.weight": torch.zeros(8, 3, 5, 5)})),
        "model cannot be loaded: .*conv_in.*",
    ),
    "a weight is missing": (
        weights(lambda w: w.pop("conv_in.weight")),
        r"model cannot be loaded: its weights lack unet\.conv_in\.weight\.",
    ),
    "weights that are NaN": (weights(lambda w: w["conv_in.weight"].fill_(torch.nan)), LOSS),
    "weights that are infinite": (weights(lambda w: w["conv_in.weight"].fill_(torch.inf)), LOSS),
    "no configuration": (model_file("unet/config.json", None), "model cannot be loaded: .+"),
    "damaged configuration": (model_file("unet/config.json", b"{"), "model cannot be loaded: .+"),
    "no scheduler": (model_file("scheduler/scheduler_config.json", None), "model cannot be loaded: .+"),
    "unknown prediction": (model_json("scheduler/scheduler_config.json", prediction_type="score"), ".*'score'.*"),
    "class-conditional": (class_conditional, "The backbone ddpm takes unconditional pixel models: .* without classes."),
    # choices that do not exist or do not fit
    "no such SSCD": (
        changed(similarity="sscd", similarity_option="weights=gone.onnx"),
        r"SSCD's weights gone\.onnx cannot be read.*",
    ),
    "SSCD that is text": (
        changed(similarity="sscd", similarity_option="weights=model/model_index.json"),
        ".*model_index.json.*",
    ),
    "unknown option of a similarity": (
        changed(similarity="ssim", similarity_option="side=3"),
        "ssim has no option 'side'; it has none.",
    ),
    "unknown option of a noise": (
        changed(noise_option="rank=3"),
        "diagonal-gaussian has no option 'rank'; it has none.",
    ),
    "unknown option of a backbone": (
        changed(backbone_option="mode=3"),
        "The backbone has no option 'mode'; it has none.",
    ),
    "rank of nothing": (changed(noise="low-rank-gaussian", noise_option="rank=0"), ".*rank.*"),
    "rank that is a word": (changed(noise="low-rank-gaussian", noise_option="rank=many"), ".*rank.*"),
    "no draws": (changed(set="draws=0"), "The recipe's draws is 0; it must be at least 1."),
    "steps between checks": (
        changed(set=["max_steps=3", "check_every=2"]),
        "The recipe's max_steps .* must be a multiple .*",
    ),
    "no guidance": (changed(set="guidance="), "'' is no value for the recipe's guidance."),
    "no rate": (changed(set="learning_rate=0"), "The recipe's learning_rate is 0.0; it must be above 0."),
    "threshold NaN": (changed(set="threshold=nan"), "The recipe's threshold is nan; it must be finite."),
    # a folder that cannot be written to
    "file as output": (
        changed(out="model/model_index.json"),
        r"The folder .* cannot be used: (File exists|Not a directory)\.",
    ),
    "output below a file": (out_below_a_file, r"The folder file/out cannot be used: Not a directory\."),
    "output where nobody can write": (
        changed(out="/proc/out"),
        r"The folder /proc/out cannot be used: No such file or directory\.",
    ),
    "damaged config": (out_file("config.json", "{"), "out/config.json is damaged, .*choose another folder."),
    "another audit": (
        out_file("config.json", "{}"),
        "out holds an audit with another config: .*",
    ),
    "in use": (locked, "Another run is writing to out; wait for its end, or choose another folder."),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_has_its_sentence(
    mistake: str,
    invoke: Invoke,
    given: Given,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make, told = MISTAKES[mistake]
    given["patch"] = monkeypatch
    make(tmp_path, given)
    extra = [given.pop(name, None) for name in ("patch", "lock")]
    code, _, err = run(invoke, given)
    del extra
    *_, last = err.splitlines()
    assert code == 1, err
    assert re.fullmatch(
        rf"error ((The image could not be measured|All 2 images failed for the same reason): )?{told}", last
    ), last
    assert "Traceback" not in err


GOOD: dict[str, Make] = {
    "one pixel": content(encoded("PNG", Image.new("L", (1, 1), 7))),
    "100 megapixels": content(encoded("PNG", Image.new("1", (10_000, 10_000)))),
    "newline in the name": content(encoded("PNG"), "two\nlines.png"),
    "unicode in the name": content(encoded("PNG"), "größe 画像 🙂 \u202e.png"),
    "markup in the name": content(encoded("PNG"), "[red]a[red] $(rm) %s {0}.png"),
    "wrong suffix": content(encoded("JPEG"), "bad.png"),
    "hidden file beside": hidden,
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("oddity", GOOD)
def test_what_is_odd_but_good_is_measured(oddity: str, invoke: Invoke, given: Given, tmp_path: Path) -> None:
    GOOD[oddity](tmp_path, given)
    code, _, err = run(invoke, given)
    assert (code, "Traceback" in err) == (0, False), err
    assert {row["status"] for row in read("out").rows} <= {"exhausted", "replicated"}


def test_a_name_that_is_no_unicode_is_escaped(invoke: Invoke, given: Given, tmp_path: Path) -> None:
    name = b"a\xff.png".decode("utf-8", "surrogateescape")
    content(encoded("PNG"), name)(tmp_path, given)
    for _ in range(2):
        code, out, err = run(invoke, given)
        assert (code, "Traceback" in err) == (0, False), err
        assert "0 of 1 images were replicated; 0 failed." in out
    assert [row["name"] for row in read("out").rows] == ["a\\udcff.png"]


def test_files_of_one_name_in_several_folders_are_told_apart(invoke: Invoke, given: Given, tmp_path: Path) -> None:
    for number, name in enumerate(("x/a.png", "x/a.jpg", "y/a.png", "z/a.png")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.roll(NOISE, number, axis=0)).save(tmp_path / name, "PNG")
    given["images"] = ["x", "y", "z"]
    for _ in range(2):
        assert run(invoke, given)[0] == 0
        assert [row["name"] for row in read("out").rows] == ["a.jpg", "a.png", "a.png", "a.png"]
        assert len({row["digest"] for row in read("out").rows}) == 4
        assert (tmp_path / "out" / "results.jsonl").read_bytes().count(b"\n") == 4


@pytest.mark.parametrize(
    ("contents", "told"),
    [
        (None, "out holds no audit that can be read: .*config.json: No such file or directory."),
        ({"config.json": "{"}, "out/config.json is damaged, .*"),
        ({"config.json": "{}", "images.json": "["}, "out/images.json is damaged, .*"),
        ({"config.json": "{}", "results.jsonl": "7\n"}, "Line 1 of out/results.jsonl is damaged; remove it .*"),
    ],
)
def test_the_status_of_no_audit(
    contents: dict[str, str] | None,
    told: str,
    invoke: Invoke,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in (contents or {}).items():
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / name).write_text(text)
    code, out, err = invoke("status", "out")
    assert (code, out) == (1, "")
    assert re.fullmatch(f"error {told}\n", err)
