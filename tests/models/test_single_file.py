"""A model in one file is the model of its folder; whatever cannot be loaded so is told in a sentence."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig

from invmm_eval import load_backbone
from invmm_eval.errors import InvMMError
from invmm_eval.models.single_file import SingleFile, single_file
from invmm_eval.testing import tiny
from tests.helpers.command import SET, Invoke
from tests.helpers.hub import Hub, Repository
from tests.helpers.original import write_original

OPTIONS = {"prompt_mode": "caption"}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_original(tiny.tiny_stable_diffusion(), tmp_path_factory.mktemp("single") / "checkpoint.safetensors")


def without_weights(folder: Path, target: Path) -> Path:
    shutil.copytree(folder, target, ignore=shutil.ignore_patterns("*.safetensors"))
    return target


@pytest.fixture(scope="module")
def configs(tiny_stable_diffusion_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder without its weights."""
    return without_weights(tiny_stable_diffusion_folder, tmp_path_factory.mktemp("configs") / "model")


def sdxl() -> StableDiffusionXLPipeline:
    """Its text encoders differ in width, by which diffusers tells them apart."""
    pipeline = tiny.tiny_sdxl()
    with tiny.seeded():
        for name, width in (("text_encoder", 8), ("text_encoder_2", 24)):
            encoder = getattr(pipeline, name)
            config = {**encoder.config.to_dict(), "hidden_size": width}
            pipeline.register_modules(**{name: type(encoder)(CLIPTextConfig(**config)).eval()})
    return pipeline


@pytest.mark.parametrize("make", [tiny.tiny_stable_diffusion, sdxl])
def test_a_single_file_has_the_estimates_of_its_folder(make: Callable[[], Any], tmp_path: Path) -> None:
    make().save_pretrained(tmp_path / "folder")
    file = write_original(make(), tmp_path / "checkpoint.safetensors")
    configs = without_weights(tmp_path / "folder", tmp_path / "configs")
    found = load_backbone(file, backbone_options={**OPTIONS, "config": configs})
    expected = load_backbone(tmp_path / "folder", backbone_options=OPTIONS)
    assert type(found) is type(expected)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, *expected.image_shape, generator=generator)
    x_0 = expected.encode(images)
    assert torch.equal(found.encode(images), x_0)
    assert torch.equal(found.decode(x_0), expected.decode(x_0))
    x_t, t = torch.randn(x_0.shape, generator=generator), expected.schedule.draw(2, generator)
    estimates = [
        backbone.predict_x0(x_t, t, backbone.condition("a cat").rsample(2, generator)) for backbone in (found, expected)
    ]
    assert torch.equal(*estimates)


def test_the_configs_of_a_published_model_that_a_file_is_like_are_found(
    file: Path, configs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = {part.relative_to(configs).as_posix(): part.read_bytes() for part in configs.rglob("*") if part.is_file()}
    with Hub() as hub:
        hub.redirect(monkeypatch, tmp_path)
        name = "stable-diffusion-v1-5/stable-diffusion-v1-5"
        hub.repositories[f"models/{name}"] = Repository({**stored, "unet/weights.bin": b""})
        found = single_file(file, None)
        assert found is not None
        assert {part.relative_to(found.config).as_posix() for part in found.config.rglob("*.*")} == stored.keys()
        assert SingleFile(file, configs).identity == found.identity
        assert load_backbone(file, backbone_options=OPTIONS).image_shape == (3, 16, 16)


def test_an_audit_of_a_single_file_is_resumed_and_its_identity_is_of_file_and_configs(
    file: Path, configs: Path, tmp_path: Path, invoke: Invoke
) -> None:
    model, folder = tmp_path / "checkpoint.safetensors", tmp_path / "configs"
    shutil.copy(file, model)
    shutil.copytree(configs, folder)
    Image.radial_gradient("L").convert("RGB").save(tmp_path / "image.png")
    command = [
        *("run", "--model", model, "--images", tmp_path / "image.png", "--out", tmp_path / "audit", *SET),
        *("--similarity", "pixel-cosine", "--backbone-option", "prompt_mode=empty", "--backbone-option"),
        f"config={folder}",
    ]
    for _ in range(2):
        invoke.out(*command)
    config = json.loads((tmp_path / "audit" / "config.json").read_text())
    assert config["model"] == str(model)
    assert (config["backbone"]["name"], config["backbone"]["config"]) == ("stable-diffusion", str(folder))
    scheduler = folder / "scheduler" / "scheduler_config.json"
    text = scheduler.read_text()
    scheduler.write_text(json.dumps({**json.loads(text), "beta_end": 0.013}))
    identities = {config["weights"], SingleFile(model, folder).identity}
    scheduler.write_text(text)
    tensors = load_file(model)
    save_file({**tensors, "model.diffusion_model.out.2.bias": torch.ones(4)}, model)
    assert len({*identities, SingleFile(model, folder).identity}) == 3


def test_what_cannot_be_loaded_as_a_single_file_is_told(
    file: Path, configs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    pickled = tmp_path / "checkpoint.ckpt"
    pickled.touch()
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"no weights")
    lacking = tmp_path / "lacking.safetensors"
    save_file({k: v for k, v in load_file(file).items() if not k.startswith("cond_stage_model")}, lacking)
    partial = tmp_path / "partial.safetensors"
    save_file({k: v for k, v in load_file(file).items() if not k.endswith("out.2.bias")}, partial)
    for model, config, sentence in (
        (pickled, configs, "checkpoint.ckpt is no .safetensors file, and pickled weights are never loaded"),
        (partial, None, "name a folder .* by --backbone-option config=FOLDER"),
        (damaged, None, "damaged.safetensors is damaged"),
        (file, "org/model", "There is no folder org/model"),
        (file, tmp_path, "has no model_index.json"),
        (damaged, configs, "damaged.safetensors cannot be loaded as the StableDiffusionPipeline of"),
        (lacking, configs, "lacking.safetensors cannot be loaded as the .*CLIPTextModel"),
        (partial, configs, "partial.safetensors cannot be loaded"),
    ):
        options = OPTIONS if config is None else {**OPTIONS, "config": config}
        for backbone in (None, "diffusers"):
            with pytest.raises(InvMMError, match=sentence):
                load_backbone(model, backbone=backbone, backbone_options=options)


def test_a_folder_of_configs_of_another_kind_or_with_pickles_is_refused(
    file: Path, configs: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(InvMMError, match="of a DDIMPipeline, which diffusers cannot load from a single file"):
        load_backbone(file, backbone_options={"config": tiny_folder})
    folder = tmp_path / "configs"
    shutil.copytree(configs, folder)
    (folder / "text_encoder" / "pytorch_model.bin").touch()
    with pytest.raises(InvMMError, match="text_encoder has pickled weights, which are never loaded"):
        load_backbone(file, backbone_options={"config": folder})
