"""The metric of evaluate: what it returns, what reaches the engine, and what it keeps."""

import gc
import inspect
import json
import math
import re
import weakref
from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import evaluate
import numpy as np
import pytest
import torch
from diffusers import DDIMPipeline
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from invmm_eval.audits.run import audit
from invmm_eval.errors import InvMMError
from invmm_eval.metric.invmm import InvMM
from invmm_eval.reference import pictures as reference_pictures
from invmm_eval.testing.tiny import tiny_stable_diffusion
from tests.helpers.command import TINY
from tests.helpers.exact import Mixture, pictures, serving
from tests.helpers.images import encoded

MEMORIZED = pictures(2)
UNSEEN = pictures(1, seed=99)
COLOURS = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)


class Eye:
    """A similarity that remembers the first pictures it is shown, and finds nothing alike."""

    name = "eye"
    threshold = 2.0
    settings: Mapping[str, str | int | float | None] = {}

    def __init__(self) -> None:
        self.seen: list[NDArray[np.uint8]] = []

    def embed(self, images: Tensor) -> Tensor:
        if len(images) == 1:
            self.seen.append((images[0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy())
        return images.flatten(1)

    def compare(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.zeros(len(a), len(b))


@pytest.fixture
def made() -> Iterator[list[weakref.ref[Mixture]]]:
    """The models that were loaded: ``exact`` knows two pictures."""
    made: list[weakref.ref[Mixture]] = []

    def make(*_: object, **__: object) -> Mixture:
        backbone = Mixture(MEMORIZED)
        made.append(weakref.ref(backbone))
        return backbone

    with serving(make):
        yield made


@pytest.fixture
def metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InvMM:
    monkeypatch.delenv("INVMM_SSCD_WEIGHTS", raising=False)
    return InvMM(cache_dir=str(tmp_path / "cache"))


def png(pixels: NDArray[np.uint8]) -> bytes:
    return encoded(Image.fromarray(pixels))


def leaves(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner)
    else:
        yield value


@pytest.mark.usefixtures("made")
def test_each_image_has_its_verdict_and_all_is_told_in_plain_types(metric: InvMM, tmp_path: Path) -> None:
    references = [*MEMORIZED, b"no image", *UNSEEN]
    found = metric.compute(references=references, model="any", backbone="exact", recipe="paper")

    assert found["status"] == ["replicated", "replicated", "failed", "exhausted"]
    assert [type(status) for status in found["status"]] == [str] * 4
    first, second, damaged, unseen = found["invmm"]
    assert 0 < first < 1
    assert 0 < second < 1
    assert (damaged, unseen) == (None, None)
    assert found["kl"][:2] == [first, second]
    assert found["kl"][2] is None
    assert math.isfinite(found["kl"][3])
    assert [similarity and similarity >= 0.9 for similarity in found["similarity"]] == [True, True, None, False]
    assert found["steps"][2:] == [0, 200]
    assert [error is None for error in found["error"]] == [True, True, False, True]
    assert (found["images"], found["replicated"], found["failed"]) == (4, 2, 1)
    assert found["replicated_fraction"] == 2 / 4
    assert found["median_invmm"] == max(first, second)
    assert found["smallest_invmm"] == min(first, second)

    assert {type(leaf) for leaf in leaves(found)} == {str, int, float, type(None)}
    saved = evaluate.save(tmp_path / "saved.json", **found)
    read = json.loads(Path(saved).read_text(), parse_constant=lambda constant: pytest.fail(f"{constant} in JSON"))
    assert read["invmm"] == [first, second, None, None]


def test_it_says_what_an_audit_says(metric: InvMM, tiny_folder: Path) -> None:
    images = [COLOURS, COLOURS[::-1].copy()]
    for seed in (0, 1):
        found = metric.compute(
            references=images, model=str(tiny_folder), settings=TINY, seed=seed, noise="isotropic-gaussian"
        )
        told = audit(str(tiny_folder), images, settings=TINY, seed=seed, noise="isotropic-gaussian")
        assert found["kl"] == [result.kl for result in told]
        assert found["similarity"] == [result.similarity for result in told]
        assert found["steps"] == [result.steps for result in told] == [2, 2]
    other_seed = metric.compute(references=images, model=str(tiny_folder), settings=TINY, noise="isotropic-gaussian")
    assert other_seed["kl"] != found["kl"]


def test_images_may_come_one_by_one_or_in_batches(metric: InvMM, tiny_folder: Path) -> None:
    images = [np.roll(COLOURS, shift) for shift in range(4)]
    whole = metric.compute(references=images, model=tiny_folder, settings=TINY)
    metric.add(reference=images[0])
    metric.add(references=images[1])
    metric.add_batch(references=images[2:])
    assert len(metric) == 4
    assert metric.compute(model=tiny_folder, settings=TINY) == whole
    assert len(set(whole["similarity"])) == 4, "the four can be told apart"


def test_every_pixel_reaches_the_engine(
    metric: InvMM, tiny_pipeline: DDIMPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "colours.png"
    file.write_bytes(png(COLOURS))
    Path("other.png").write_bytes(png(255 - COLOURS))
    edited = Image.open("other.png")
    edited.paste(Image.fromarray(COLOURS))
    lossy = Image.fromarray(COLOURS)
    lossy.format = "JPEG"
    turned = Image.fromarray(np.rot90(np.pad(COLOURS, ((0, 0), (4, 4), (0, 0)))))
    turned.getexif()[0x0112] = 6
    chw = torch.from_numpy(COLOURS).permute(2, 0, 1)
    palette = Image.fromarray(COLOURS).quantize(64)
    forms = {
        "array": COLOURS,
        "array of floats": COLOURS / 255,
        "array of float32": (COLOURS / 255).astype(np.float32),
        "tensor": chw,
        "tensor of floats": chw / 255,
        "PIL": Image.fromarray(COLOURS),
        "PIL that is opened": Image.open(file),
        "PIL that is no more what its file is": edited,
        "PIL that was a JPEG": lossy,
        "PIL that is wide but lies on its side": turned,
        "path": file,
        "text": str(file),
        "bytes": png(COLOURS),
        "bytearray": bytearray(png(COLOURS)),
        "memoryview": memoryview(png(COLOURS)),
        "row of a file": {"bytes": None, "path": str(file)},
        "row whose name is also that of another file": {"bytes": png(COLOURS), "path": "other.png"},
    }
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    others = {
        "PIL with few colours": (palette, np.asarray(palette.convert("RGB"))),
        "grey": (Image.fromarray(grey), grey[..., None].repeat(3, axis=2)),
        "grey in 16 bits": (Image.fromarray(grey * np.uint16(257)), grey[..., None].repeat(3, axis=2)),
    }
    for name, (form, pixels) in {**{name: (form, COLOURS) for name, form in forms.items()}, **others}.items():
        eye = Eye()
        metric.compute(references=[form], model=tiny_pipeline, settings=TINY, similarity=eye)
        assert np.array_equal(eye.seen[0], pixels), name


def folder(images: list[NDArray[np.uint8]], place: Path) -> Path:
    for index, image in enumerate(images):
        (place / f"{index}.png").write_bytes(png(image))
    return place


@pytest.mark.parametrize(
    "gather",
    [
        lambda images, _: np.stack(images),
        lambda images, _: torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 255,
        lambda images, place: str(folder(images, place)),
        lambda images, _: datasets.Dataset.from_dict({"picture": [Image.fromarray(image) for image in images]}),
        lambda images, _: (image for image in images),
    ],
    ids=["array", "tensor", "folder", "data set", "generator"],
)
def test_images_may_come_together(
    gather: Callable[[list[NDArray[np.uint8]], Path], Any],
    metric: InvMM,
    tiny_pipeline: DDIMPipeline,
    tmp_path: Path,
) -> None:
    (tmp_path / "images").mkdir()
    images = [COLOURS, 255 - COLOURS]
    eye = Eye()
    references = gather(images, tmp_path / "images")
    metric.compute(references=references, model=tiny_pipeline, settings=TINY, similarity=eye)
    assert np.array_equal(eye.seen[:2], images)


@pytest.mark.usefixtures("made")
def test_a_damaged_file_fails_alone(metric: InvMM, tmp_path: Path) -> None:
    whole = png(MEMORIZED[0, 0].numpy())
    torn = tmp_path / "torn.png"
    torn.write_bytes(png(COLOURS)[:120])
    references = [torn, whole, {"bytes": None, "path": str(tmp_path / "gone.png")}, None]
    found = metric.compute(references=references, model="any", backbone="exact", settings=TINY)
    assert [status == "failed" for status in found["status"]] == [True, False, True, True]
    assert "torn.png" in found["error"][0]
    assert "gone.png" in found["error"][2]


@pytest.mark.parametrize(
    ("reference", "told"),
    [
        (np.full((4, 4), 2.0), "not all in"),
        (Image.open(BytesIO(png(COLOURS)[:120])), "damaged|truncated"),
        (7, "cannot be listed"),
        ("nowhere.png", "nowhere.png"),
    ],
)
def test_what_is_no_image_is_refused_when_it_is_given(metric: InvMM, reference: object, told: str) -> None:
    with pytest.raises(InvMMError, match=told):
        metric.add(reference=reference)


def test_a_forgotten_model_is_one_sentence(metric: InvMM) -> None:
    with pytest.raises(InvMMError, match=r"^compute\(\) needs model=: a folder .* or 'reference'\.$"):
        metric.compute(references=UNSEEN)


@pytest.mark.usefixtures("made")
def test_max_steps_is_short_for_a_setting(metric: InvMM) -> None:
    found = metric.compute(
        references=UNSEEN, model="any", backbone="exact", max_steps=4, settings={"max_steps": 90, "check_every": 2}
    )
    assert found["steps"] == [4]


def test_captions_are_the_prompts_of_a_model_that_takes_them(metric: InvMM) -> None:
    images, captions = [COLOURS, 255 - COLOURS], ["a red heart", "a blue cat"]
    how: dict[str, Any] = {
        "model": tiny_stable_diffusion(),
        "backbone_options": {"prompt_mode": "caption"},
        "settings": {**TINY, "guidance": (1.0,)},
    }
    found = metric.compute(references=images, captions=captions, **how)
    for place, (image, caption) in enumerate(zip(images, captions, strict=True)):
        [alone] = audit(images=[image], captions=[caption], **how)
        assert alone.prompt == caption
        assert (found["kl"][place], found["similarity"][place]) == (alone.kl, alone.similarity)
    assert metric.compute(references=images, captions=captions[::-1], **how)["similarity"] != found["similarity"]

    with pytest.raises(InvMMError, match="needs a caption for each image"):
        metric.compute(references=images, **how)
    with pytest.raises(InvMMError, match="There are 1 captions for 2 images"):
        metric.compute(references=images, captions=captions[:1], **how)


def test_a_folder_is_loaded_once_and_again_when_it_changes(
    metric: InvMM, made: list[weakref.ref[Mixture]], tmp_path: Path
) -> None:
    weights = tmp_path / "model" / "unet" / "weights"
    weights.parent.mkdir(parents=True)
    stored = tmp_path / "blob"  # as the cache of the Hub links to it
    stored.write_bytes(b"first")
    weights.symlink_to(stored)

    def loads(model: object, **how: Any) -> int:
        before = len(made)
        metric.compute(references=UNSEEN, model=model, backbone="exact", **{"settings": TINY, **how})
        return len(made) - before

    assert loads(tmp_path / "model") == 1
    assert loads(str(tmp_path / "model"), seed=3, settings={"draws": 4}) == 0
    assert made[0]() is not None
    stored.write_bytes(b"other")
    assert loads(tmp_path / "model") == 1
    assert loads(tmp_path / "model", dtype="bfloat16") == 1
    assert loads("org/name", dtype="bfloat16") == 1
    assert loads("org/name", dtype="bfloat16", revision="v2") == 1
    gc.collect()
    assert [model() is None for model in made] == [True, True, True, True, False], "one is kept at a time"
    metric.release()
    gc.collect()
    assert made[-1]() is None
    assert loads("org/name", dtype="bfloat16", revision="v2") == 1
    checkpoint = tmp_path / "model.pt"
    checkpoint.write_bytes(b"first epoch")
    assert [loads(checkpoint), loads(checkpoint)] == [1, 0]
    checkpoint.write_bytes(b"second epoch, longer")
    assert loads(checkpoint) == 1


def test_the_weights_of_a_pipeline_are_those_of_the_moment(metric: InvMM, tiny_pipeline: DDIMPipeline) -> None:
    pipeline = DDIMPipeline(tiny_pipeline.unet, tiny_pipeline.scheduler)
    before = metric.compute(references=[COLOURS], model=pipeline, settings=TINY)["kl"]
    torch.manual_seed(1)
    pipeline.unet = type(pipeline.unet)(**pipeline.unet.config)
    after = metric.compute(references=[COLOURS], model=pipeline, settings=TINY)["kl"]
    assert after == [audit(pipeline, [COLOURS], settings=TINY)[0].kl]
    assert after != before


def test_a_folder_keeps_results_by_the_names_of_files_and_reference_images(
    metric: InvMM, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("invmm_eval.reference.choose", lambda known: known[:1])
    (tmp_path / "a.png").write_bytes(png(COLOURS))
    names = [str(tmp_path / "a.png"), reference_pictures()[0].name]
    metric.add_batch(references=tmp_path / "a.png")
    metric.add_batch(references="reference")
    found = metric.compute(model=tiny_folder, settings=TINY, out=tmp_path / "out")
    rows = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert [row["name"] for row in rows] == found["name"] == names
    assert [row["kl"] for row in rows] == found["kl"]


def test_the_notice_about_sscd_comes_once(
    metric: InvMM,
    tiny_pipeline: DDIMPipeline,
    caplog: pytest.LogCaptureFixture,
    plain: None,  # noqa: ARG001
) -> None:
    for _ in range(2):
        metric.compute(references=[COLOURS], model=tiny_pipeline, settings=TINY)
    assert caplog.text.count("so images are compared by pixel-cosine") == 1


def test_its_name_is_that_of_the_module(metric: InvMM) -> None:
    """evaluate prefixes it to the values of combined metrics that share a key."""
    assert metric.name == evaluate.combine([metric]).evaluation_module_names[0] == "invmm"


def test_it_goes_along_with_other_metrics(metric: InvMM, tiny_folder: Path, tmp_path: Path) -> None:
    other = InvMM(cache_dir=str(tmp_path / "other"))
    together = evaluate.combine({"one": metric, "other": other}).compute(
        references=[COLOURS], model=tiny_folder, settings=TINY
    )
    alone = metric.compute(references=[COLOURS], model=tiny_folder, settings=TINY)
    assert together == {f"{name}_{key}": value for name in ("one", "other") for key, value in alone.items()}


class Brightness(evaluate.Metric):  # type: ignore[misc]
    """How much brighter the predictions are than the references; as metrics of pairs do, it wants both."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({"predictions": datasets.Image(), "references": datasets.Image()})
        return evaluate.MetricInfo(description="", citation="", inputs_description="", features=features)

    def _compute(self, predictions: list[Any], references: list[Any], **_: Any) -> dict[str, float]:
        return {"brightness": float(np.mean(predictions) - np.mean(references))}


@pytest.mark.parametrize("at_once", [True, False])
def test_it_goes_along_with_a_metric_of_pairs(
    metric: InvMM, tiny_pipeline: DDIMPipeline, tmp_path: Path, at_once: bool
) -> None:
    pairs = {"predictions": [COLOURS, COLOURS], "references": [COLOURS, COLOURS // 2]}
    combined = evaluate.combine([metric, Brightness(cache_dir=str(tmp_path / "pairs"))])
    if not at_once:
        combined.add_batch(**pairs)
    together = combined.compute(model=tiny_pipeline, settings=TINY, **(pairs if at_once else {}))
    alone = metric.compute(references=pairs["references"], model=tiny_pipeline, settings=TINY)
    brighter = (COLOURS.mean() - (COLOURS // 2).mean()) / 2
    assert together == {**alone, "brightness": pytest.approx(brighter)}


def test_references_may_stay_in_memory(metric: InvMM, tiny_folder: Path, tmp_path: Path) -> None:
    in_memory = InvMM(keep_in_memory=True, cache_dir=str(tmp_path / "memory"))
    given: dict[str, Any] = {"references": [COLOURS, b""], "model": tiny_folder, "settings": TINY}
    told = [evaluate_metric.compute(**given) for evaluate_metric in (metric, in_memory)]
    assert told[0]["kl"] == told[1]["kl"]
    assert told[0]["status"] == told[1]["status"] == ["exhausted", "failed"]


def test_all_is_described(metric: InvMM, tiny_folder: Path) -> None:
    args, returns = re.split(r"\n(?:Returns|Examples):\n", metric.inputs_description)[:2]
    parameters = set(inspect.signature(InvMM._compute).parameters) - {"self"}
    assert set(re.findall(r"^    (\w+)(?: \(.+?\))?:", args, re.M)) == parameters
    described = re.findall(r"^    ([\w, ]+):", returns, re.M)
    found = metric.compute(references=[COLOURS], model=tiny_folder, settings=TINY)
    assert {name for names in described for name in names.split(", ")} == set(found)
    assert "2405.05846" in metric.citation
    assert metric.inputs_description in metric.compute.__doc__
