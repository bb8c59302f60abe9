"""Mistakes of users, each through the real command line: exit code 1 and one sentence.

Here is one case for each way in which a mistake reaches the command line, and those that only a whole run shows. What
images, models, options and folders are refused for is tested with the module that refuses it.
"""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from invmm_eval.audits.folder import read
from tests.helpers.command import SET, Invoke

NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def folder(tiny_folder: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a copy of the tiny model and two images; no Hub."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    shutil.copytree(tiny_folder, "model")
    assert images.is_dir()
    Path("empty.png").touch()
    shutil.copytree("model", "incomplete")
    file = Path("incomplete/unet/diffusion_pytorch_model.safetensors")
    weights = load_file(file)
    del weights["conv_in.weight"]
    save_file(weights, file)
    return tmp_path


def run(invoke: Invoke, *more: object) -> tuple[int, str, str]:
    return invoke("run", "--model", "model", "--out", "out", *SET, *more)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (["--images", "nowhere[red]"], r"The file or folder 'nowhere\[red\]' cannot be opened: .*"),
        (["--images", "empty.png"], r"The image could not be measured: The image .*empty\.png' cannot be used: .*"),
        (["--images", "images", "--model", "./nowhere[/x]"], r"There is no folder \./nowhere\[/x\]\."),
        (
            ["--images", "images", "--model", "model/unets"],
            r"There is no folder model/unets \(did you mean 'model/unet'\?\); model is a folder here, so .*",
        ),
        (["--images", "images", "--model", "empty.png"], ".*empty.png.*"),
        (["--images", "images", "--model", "incomplete"], r"incomplete .*: its weights lack unet\.conv_in\.weight\."),
        (["--images", "images", "--out", "empty.png"], "The folder .* cannot be used: (File exists|Not a directory)."),
    ],
)
def test_a_mistake_is_one_sentence(wrong: list[str], sentence: str, invoke: Invoke) -> None:
    code, _, err = run(invoke, *wrong)
    assert (code, "Traceback" in err) == (1, False)
    assert re.fullmatch(f"error {sentence}", err.splitlines()[-1]), err


def test_odd_but_good_images_are_measured(invoke: Invoke) -> None:
    odd = {
        "one pixel.png": Image.new("RGB", (1, 1), "teal"),
        **dict.fromkeys(
            ("two\nlines.png", "größe 画像 🙂 \u202e.png", "[red]a[red] $(rm) %s {0}.png"), Image.fromarray(NOISE)
        ),
        b"a\xff.png".decode("utf-8", "surrogateescape"): Image.fromarray(NOISE),
    }
    for name, image in odd.items():
        image.save(Path("images", name))
    Path("images", ".hidden.png").touch()
    for _ in range(2):
        code, out, err = run(invoke, "--images", "images")
        assert (code, "Traceback" in err) == (0, False), err
        assert "Of 7 images: 0 memorized, 0 replicable, 7 not replicated, 0 failed." in out
    expected = {"a\\udcff.png" if "\udcff" in name else name for name in odd}
    assert {row["name"] for row in read("out").rows} == expected | {"a.png", "b.png"}


def test_files_of_one_name_in_several_folders_are_different_images(invoke: Invoke) -> None:
    for number, name in enumerate(("x/a.png", "x/a.jpg", "y/a.png", "z/a.png")):
        Path(name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.roll(NOISE, number, axis=0)).save(name, "PNG")
    for _ in range(2):
        assert run(invoke, "--images", "x", "--images", "y", "--images", "z")[0] == 0
        assert [row["name"] for row in read("out").rows] == ["a.jpg", "a.png", "a.png", "a.png"]
        assert len({row["digest"] for row in read("out").rows}) == 4
        assert Path("out", "results.jsonl").read_bytes().count(b"\n") == 4
