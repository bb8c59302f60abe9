"""The reference model: small, with a truth that rises with the dose; examples hold that InvMM finds it."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from diffusers import DDIMPipeline

from invmm_eval.audits.images import find_images
from invmm_eval.audits.options import Choices, ModelOptions
from invmm_eval.audits.pictures import prepare
from invmm_eval.audits.plan import load_backbone, make_plan
from invmm_eval.audits.request import Request, command
from invmm_eval.errors import InvMMError
from invmm_eval.reference import MODEL, THRESHOLD, all_pictures, choose, pictures, plain_samples
from invmm_eval.search.sampling import sample
from invmm_eval.similarity.pixel_cosine import PixelCosine


def test_it_is_small() -> None:
    shipped = [*MODEL.parent.glob("*.parquet"), MODEL.parent / "truth.json", *MODEL.rglob("*")]
    assert sum(file.stat().st_size for file in shipped if file.is_file()) < 4_000_000


def test_it_is_an_ordinary_pipeline() -> None:
    pipeline = DDIMPipeline.from_pretrained(MODEL, dtype=torch.float32, use_safetensors=True)
    assert load_backbone(MODEL).image_shape == (3, pipeline.unet.config.sample_size, pipeline.unet.config.sample_size)


def test_all_its_pictures_are_there_each_once() -> None:
    everything = all_pictures()
    assert (
        len({picture.image.tobytes() for picture in everything}) == len({p.code for p in everything}) == len(everything)
    )
    counts = Counter(picture.copies for picture in everything)
    assert counts == {256: 3, 64: 3, 16: 3, 4: 3, 1: 472, 0: 60}
    assert all(picture.drawn is None and picture.copies == 1 for picture in everything[len(pictures()) :])
    assert all(picture.drawn is not None for picture in pictures())


def test_its_licence_and_card_stand_beside_it() -> None:
    assert "OpenMoji" in (MODEL.parent / "LICENSE").read_text()
    assert f"Of {plain_samples()} plain samples" in (MODEL.parent / "README.md").read_text()


def test_plain_sampling_gives_back_more_of_what_was_repeated_more() -> None:
    rates = {dose: [p.drawn or 0 for p in pictures() if p.copies == dose] for dose in (256, 64, 16, 4, 1, 0)}
    means = [sum(counts) / len(counts) for counts in rates.values()]
    assert means[0] > means[1] > means[2] > means[3] >= means[4] >= means[5]
    assert rates[0] == [0] * len(rates[0])


def test_the_counts_are_those_of_fresh_samples() -> None:
    """The share of copies of the most repeated pictures among 64 new samples agrees with the recorded one."""
    backbone = load_backbone(MODEL)
    most = [p for p in pictures() if p.copies == 256]
    cosine = PixelCosine(device=torch.device("cpu"))
    noise = torch.randn((64, 3, 32, 32), generator=torch.Generator().manual_seed(123))
    images = sample(backbone, noise, {}, {}, torch.ones(64), steps=25, micro_batch=64)
    targets = torch.stack([prepare(p.image, backbone.image_shape) for p in most]).float() / 255
    copies = int((cosine.compare(cosine.embed(images), cosine.embed(targets)) >= THRESHOLD).sum())
    expected = 64 * sum(p.drawn or 0 for p in most) / plain_samples()
    assert abs(copies - expected) < 4 * expected**0.5


def test_pictures_of_each_number_of_copies_are_chosen() -> None:
    copies = [picture.copies for picture in choose(pictures(), each=2, held_out=3)]
    assert copies == [256, 256, 64, 64, 16, 16, 4, 4, 1, 1, 0, 0, 0]


def test_its_name_stands_for_the_model_and_its_pictures() -> None:
    """They are those of the demo, and records name them so that their command runs on any machine."""
    assert load_backbone("reference").image_shape == (3, 32, 32)
    trained, held_out = (find_images(name) for name in ("reference", "reference:held-out"))
    assert [(each.name, each.value.tobytes()) for each in (*trained, *held_out)] == [  # type: ignore[union-attr]
        (picture.name, picture.image.tobytes()) for picture in choose(pictures())
    ]
    assert (len(trained), len(held_out)) == (15, 6)
    for name in ("reference", MODEL):
        plan = make_plan(ModelOptions(source=name), Choices(similarity="pixel-cosine"))
        assert plan.config["model"] == "reference"
    request = Request.of("reference", ["reference", "reference:held-out"])
    assert "--model reference \\\n  --images reference \\\n  --images reference:held-out" in command(request.record())


def test_a_folder_of_its_name_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reference").mkdir()
    for use in (find_images, load_backbone):
        with pytest.raises(InvMMError, match=r"there is a reference here too; write \./reference for that"):
            use("reference")
    assert len(find_images("reference:held-out")) == 6
    with pytest.raises(InvMMError, match="holds no image file"):
        find_images("./reference")
