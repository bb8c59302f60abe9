"""The task in the real Inspect, held against the audit itself."""

import math
import tomllib
from base64 import b64decode
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diffusers import DDIMPipeline
from inspect_ai import eval as inspect_eval
from inspect_ai.log import EvalLog, EvalSample, read_eval_log
from inspect_ai.model import ContentImage
from PIL import Image

from invmm_eval import Status, audit
from invmm_eval.audits.folder import read
from invmm_eval.audits.folder.manifest import verify
from invmm_eval.search.status import Verdict

PROJECT = Path(__file__).parents[1]
OPTIONS: dict[str, Any] = {
    "similarity": "pixel-cosine",
    "recipe": "fast",
    "settings": {"threshold": -1.0, "plain": 8, "draws": 2, "check_images": 2, "sampler_steps": 2},
}
"""Every sample passes the threshold, so that all values exist."""


@pytest.fixture(scope="module", autouse=True)
def _installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The package with its entry points, as an installation leaves them; Inspect names tasks of such packages only."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    site = tmp_path_factory.mktemp("env") / "site-packages"
    info = site / "invmm_inspect-0.2.0.dist-info"
    info.mkdir(parents=True)
    (site / "invmm_inspect").symlink_to(PROJECT / "src" / "invmm_inspect")
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    [(name, value)] = project["entry-points"]["inspect_ai"].items()
    (info / "entry_points.txt").write_text(f"[inspect_ai]\n{name} = {value}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        yield


@pytest.fixture
def images(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    (tmp_path / "images").mkdir()
    for name, image in zip(("a.png", "b.png"), pixels, strict=True):
        Image.fromarray(image).save(tmp_path / "images" / name)
    return tmp_path / "images"


def evaluated(folder: Path, chosen: Mapping[str, Any] | None = None, /, **options: Any) -> EvalLog:
    """The log that Inspect wrote for the task by its registered name."""
    [log] = inspect_eval(
        "invmm_inspect/memorization",
        task_args={**OPTIONS, **options},
        display="none",
        log_dir=str(folder / "logs"),
        **(chosen or {}),
    )
    return read_eval_log(log.location, resolve_attachments=True)


def picture(sample: EvalSample) -> Image.Image:
    [shown] = [part for part in sample.messages[-1].content if isinstance(part, ContentImage)]
    return Image.open(BytesIO(b64decode(shown.image.removeprefix("data:image/png;base64,"))))


def test_the_log_has_what_the_audit_finds(tiny_ddpm_folder: Path, images: Path, tmp_path: Path) -> None:
    (images / "c.png").write_bytes(b"no image")
    out = tmp_path / "audit"
    log = evaluated(tmp_path, diffusion_model=str(tiny_ddpm_folder), images=[str(images)], out=str(out))
    assert (log.status, log.eval.model, log.eval.dataset.name) == ("success", "none/none", str(images))
    expected = audit(DDIMPipeline.from_pretrained(tiny_ddpm_folder), images, **OPTIONS)
    assert log.samples
    for sample, result in zip(log.samples, expected, strict=True):
        assert sample.scores
        score = sample.scores["memorized"]
        assert sample.input == result.name
        assert score.answer == str(result.verdict)
        assert score.as_dict() == {
            "memorized": result.verdict is Verdict.MEMORIZED,
            "replicated": result.status is Status.REPLICATED,
            "failed": result.status is Status.FAILED,
            "plain_share": result.plain_share and result.plain_share.rate,
            "nats": result.nats,
        }
        assert score.metadata
        assert score.metadata["digest"] == result.digest
        if result.picture:
            assert picture(sample).tobytes() == result.picture.tobytes()
    assert [result.picture is not None for result in expected] == [True, True, False]
    assert {str(result.verdict) for result in expected} == {"memorized", "failed"}
    assert log.results
    assert {scores.name: scores.metrics["mean"].value for scores in log.results.scores} == {
        "memorized": pytest.approx(2 / 3),
        "replicated": pytest.approx(2 / 3),
        "failed": pytest.approx(1 / 3),
    }
    assert read(out).progress.images == 3
    assert verify(out) == []


@pytest.mark.parametrize(("chosen", "name"), [({"limit": 1}, "a.png"), ({"sample_id": 2}, "b.png")])
def test_only_the_chosen_samples_are_measured(
    chosen: dict[str, int], name: str, tiny_ddpm_folder: Path, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "audit"
    log = evaluated(tmp_path, chosen, diffusion_model=str(tiny_ddpm_folder), images=str(images), out=str(out))
    assert log.samples
    assert [sample.input for sample in log.samples] == [row["name"] for row in read(out).rows] == [name]
    assert log.samples[0].scores
    assert log.samples[0].scores["memorized"].answer == "memorized"
    assert verify(out) == [], "it has ended"


def test_a_recipe_without_shares_does_not_tell_what_is_memorized(
    tiny_ddpm_folder: Path, images: Path, tmp_path: Path
) -> None:
    log = evaluated(
        tmp_path,
        {"limit": 1},
        diffusion_model=str(tiny_ddpm_folder),
        images=str(images),
        recipe="demo",
        settings={"max_steps": 2, "check_every": 1, "draws": 2, "sampler_steps": 2, "check_images": 2},
    )
    assert log.samples
    assert log.samples[0].scores
    assert math.isnan(float(log.samples[0].scores["memorized"].as_dict()["memorized"] or 0))
    assert log.results
    told = {scores.name: scores.scored_samples for scores in log.results.scores}
    assert told == {"memorized": 0, "replicated": 1, "failed": 1}


def test_a_model_that_cannot_be_loaded_is_told(images: Path, tmp_path: Path) -> None:
    log = evaluated(tmp_path, diffusion_model=str(tmp_path / "gone"), images=str(images))
    assert log.status == "error"
    assert log.error
    assert f"There is no folder {tmp_path / 'gone'}" in log.error.message
