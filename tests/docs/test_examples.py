"""Each example runs, and finds what it says."""

import json
import re
import runpy
import sys
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import DDPMPipeline, StableDiffusionPipeline
from PIL import Image
from scipy.stats import wilcoxon

from invmm_eval.plugins.host import host
from invmm_eval.reference import MODEL, pictures
from invmm_eval.similarity.pixel_cosine import PixelCosine
from tests.helpers.short import shorten

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
DIFFUSION = ROOT / "tests" / "data" / "stable-diffusion"


Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Runs an example in a folder of its own: what it printed."""

    def run(example: str, *arguments: object) -> str:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [example, *map(str, arguments)])
        with torch.random.fork_rng(devices=[]):
            runpy.run_path(str(EXAMPLES / example), run_name="__main__")
        return capsys.readouterr().out

    host.cache_clear()
    yield run
    host.cache_clear()


def test_the_evaluation_script_tells_a_repeated_picture_from_a_held_out_one(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shorten(monkeypatch)
    known = pictures()
    for folder, picture in (("pictures", known[0]), ("others", known[-1])):
        (tmp_path / folder).mkdir()
        picture.image.save(tmp_path / folder / "one.png")
    options = {"model": MODEL, "images": "pictures", "held-out": "others", "out": "invmm.json"}
    arguments = [part for key, value in options.items() for part in (f"--{key}", value)]
    with pytest.raises(SystemExit) as stop:
        run("evaluate_model.py", *arguments)
    assert stop.value.code == 1
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "1 of 1 images are memorized; 0 failed.",
        "0 of 1 held-out images are memorized; 0 failed.",
    ]
    saved = json.loads((tmp_path / "invmm.json").read_text())
    assert (saved["images"]["verdict"], saved["held_out"]["verdict"]) == (["memorized"], ["not replicated"])


def test_checkpoints_are_compared_over_seeds(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch)
    (tmp_path / "trained").symlink_to(MODEL)
    blank = DDPMPipeline.from_pretrained(MODEL)
    torch.nn.init.zeros_(blank.unet.conv_out.weight)
    blank.save_pretrained(tmp_path / "blank")
    run("compare_checkpoints.py", "blank", "trained", "--images", "reference", "--out", "study", "--seeds", 2)
    table = pd.read_parquet(tmp_path / "study" / "results.parquet")
    assert [*zip(table["checkpoint"], table["seed"], strict=True)] == [*product(["blank", "trained"], [0, 1])]
    shares = table.groupby(["checkpoint", "name"])["plain_share"].median()
    assert shares["trained"].max() > shares["blank"].max() == 0
    assert pd.read_csv(tmp_path / "study" / "tests.csv")["changes"].tolist() == [(shares["trained"] > 1e-5).sum()]
    assert all((tmp_path / "study" / name).stat().st_size > 0 for name in ("shares.png", "curves.png"))


def test_p_values_of_checkpoints_are_corrected_for_their_number() -> None:
    generator = np.random.default_rng(0)
    shares = pd.DataFrame(generator.random((8, 4)) * [1, 0.1, 0.9, 0.2], columns=["first", "rarer", "alike", "rare"])
    found = runpy.run_path(str(EXAMPLES / "compare_checkpoints.py"))["tested"](shares)
    expected = [wilcoxon(np.log(shares["first"]), np.log(shares[name])).pvalue for name in found.index]
    assert found["p"].tolist() == pytest.approx(expected)
    least, middle, most = sorted(expected)
    holm = [3 * least, max(3 * least, 2 * middle), max(3 * least, 2 * middle, most)]
    assert sorted(found["p_holm"]) == pytest.approx(holm)


def copies(lora: Path, caption: str, picture: Image.Image) -> int:
    """How many of 16 plain samples of the small Stable Diffusion with a LoRA are copies of a picture."""
    pipeline = StableDiffusionPipeline.from_pretrained(DIFFUSION, dtype=torch.float32)
    pipeline.load_lora_weights(lora)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(5)
    sampled = pipeline([caption] * 16, 16, 16, 10, guidance_scale=1, generator=generator, output_type="np").images
    cosine = PixelCosine(device=torch.device("cpu"))
    both = [np.moveaxis(sampled, -1, 1), np.moveaxis(np.array(picture)[None] / 255, -1, 1)]
    samples, target = (cosine.embed(torch.from_numpy(images).float()) for images in both)
    return int((cosine.compare(samples, target) >= 0.8).sum())


def test_the_training_of_a_lora_stops_and_the_last_checkpoint_before_gives_no_copies(run: Run, tmp_path: Path) -> None:
    told = run("watch_lora.py")
    found = re.search(r"Stopped at step (\d+): (.*): memorized, .*\n.* picture: checkpoint-(\d+)\n$", told)
    assert found, told
    last, name, clean = found.groups()
    assert int(clean) == int(last) - 20 > 0
    new = [picture for picture in pictures() if picture.copies == 0][:3]
    [picture] = [picture.image.resize((16, 16)) for picture in new[:2] if picture.name == name]
    assert copies(tmp_path / f"checkpoint-{clean}", name, picture) == 0
    assert copies(tmp_path / f"checkpoint-{last}", name, picture) >= 8


def test_a_plugin_may_be_registered_from_a_script(run: Run) -> None:
    repeated, held_out = run("own_similarity.py").splitlines()[-2:]
    assert "(256 copies): replicated, InvMM 0.0" in repeated
    assert "(0 copies): exhausted, InvMM inf" in held_out


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_each_example_has_a_test(example: Path) -> None:
    tests = (path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert any(re.search(rf'["/]{example.name}"', text) for text in tests)


def test_a_noise_family_may_be_registered_from_a_script(run: Run) -> None:
    assert re.search(r"\(256 copies\): replicated, InvMM 0\.\d+$", run("low_rank_noise.py").strip())
