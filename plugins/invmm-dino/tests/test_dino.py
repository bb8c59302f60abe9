"""The similarity, held against transformers' own image processors and models."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from invmm_dino import register_similarities
from invmm_dino.similarity import DINO
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import cosine_similarity
from transformers import (
    AutoImageProcessor,
    AutoModel,
    BitImageProcessorPil,
    CLIPConfig,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    ViTConfig,
    ViTModel,
)

from invmm_eval import InvMMError
from invmm_eval.plugin import Similarity
from invmm_eval.testing import check_similarity

torch.set_num_threads(1)

CPU = torch.device("cpu")
TINY = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
SIDE = 28


def save_dinov2(folder: Path, **options: Any) -> None:
    torch.manual_seed(0)
    config = Dinov2Config(**TINY, image_size=SIDE, patch_size=14, initializer_range=0.5)
    Dinov2Model(config).save_pretrained(folder)
    options = {"size": {"shortest_edge": 32}, "crop_size": {"height": SIDE, "width": SIDE}, **options}
    BitImageProcessorPil(**options).save_pretrained(folder)


def save_clip(folder: Path) -> None:
    """Its image processor is written as OpenAI's models have it."""
    torch.manual_seed(0)
    tower = {**TINY, "image_size": SIDE, "patch_size": 14, "initializer_factor": 3.0}
    CLIPModel(CLIPConfig(vision_config=tower, text_config=TINY, projection_dim=12)).save_pretrained(folder)
    processor = {
        "crop_size": SIDE,
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor",
        "image_mean": [0.48, 0.45, 0.4],
        "image_std": [0.26, 0.25, 0.27],
        "resample": 3,
        "size": SIDE,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))


def save_bilinear(folder: Path) -> None:
    """Resized to a height and width, without a crop."""
    save_dinov2(folder, size={"height": SIDE, "width": SIDE}, do_center_crop=False, resample=2)


FAMILIES = pytest.mark.parametrize("save", [save_dinov2, save_clip, save_bilinear])


def similarity(folder: Path) -> DINO:
    return DINO(device=CPU, threshold=0.9, model=str(folder))


def blocks(count: int, channels: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Random pictures in steps of 1/255, without fine grain, so that Pillow's rounding matters little."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand((count, channels, (height + 7) // 8, (width + 7) // 8), generator=generator)
    fine = coarse.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)[..., :height, :width]
    return (fine * 255).round() / 255


def expected_features(folder: Path, images: Tensor) -> Tensor:
    pixels = (images.expand(-1, 3, -1, -1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    inputs = processor([Image.fromarray(each) for each in pixels], return_tensors="pt")
    model = AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        found = model.get_image_features(**inputs) if isinstance(model, CLIPModel) else model(**inputs)
    features: Tensor = found.pooler_output
    return features


@FAMILIES
@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 24, 24), (3, 40, 60)])
def test_values_are_those_of_transformers(
    save: Callable[[Path], None], shape: tuple[int, int, int], tmp_path: Path
) -> None:
    save(tmp_path)
    a, b = blocks(3, *shape), blocks(2, *shape, seed=1)
    features, others = expected_features(tmp_path, a), expected_features(tmp_path, b)
    expected = cosine_similarity(features[:, None], others[None], dim=-1)
    dino: Similarity = similarity(tmp_path)
    found = dino.compare(dino.embed(a), dino.embed(b))
    assert found.shape == (3, 2)
    assert expected.std() > 0.04
    torch.testing.assert_close(found, expected, atol=0.01, rtol=0)


@FAMILIES
def test_it_keeps_its_promises(save: Callable[[Path], None], tmp_path: Path) -> None:
    save(tmp_path)
    check_similarity(similarity(tmp_path))


@FAMILIES
def test_an_image_is_itself_in_any_company(save: Callable[[Path], None], tmp_path: Path) -> None:
    save(tmp_path)
    dino = similarity(tmp_path)
    images = blocks(40, 3, 32, 32)
    features = dino.embed(images)
    torch.testing.assert_close(dino.compare(features, features).diagonal(), torch.ones(40))
    torch.testing.assert_close(dino.embed(images[35:36]), features[35:36], atol=1e-5, rtol=0)
    assert features.dtype == torch.float32
    assert not features.requires_grad


def test_it_is_registered_and_tells_its_settings(tmp_path: Path) -> None:
    save_dinov2(tmp_path)
    dino = register_similarities()["dino"](device=CPU, threshold=0.8, model=str(tmp_path), revision="main")
    assert isinstance(dino, DINO)
    assert (dino.name, dino.threshold) == ("dino", 0.8)
    assert dino.settings.keys() == {"model", "revision", "sha256", "processor"}
    assert (dino.settings["model"], dino.settings["revision"]) == (str(tmp_path), "main")


def test_what_the_image_processor_does_is_among_the_settings(tmp_path: Path) -> None:
    save_dinov2(tmp_path)
    first, again = (similarity(tmp_path).settings["processor"] for _ in range(2))
    assert first == again
    changes: list[dict[str, Any]] = [
        {"size": {"shortest_edge": 40}},
        {"resample": 2},
        {"image_mean": [0.5, 0.5, 0.5]},
        {"image_std": [0.5, 0.5, 0.5]},
        {"do_center_crop": False, "size": {"height": SIDE, "width": SIDE}},
        {"crop_size": {"height": 14, "width": 14}},
    ]
    told = {first}
    for change in changes:
        save_dinov2(tmp_path, **change)
        told.add(similarity(tmp_path).settings["processor"])
    assert len(told) == 1 + len(changes)


@pytest.mark.parametrize("change", [{"do_resize": False}, {"do_normalize": False}, {"rescale_factor": 1.0}])
def test_an_image_processor_that_leaves_a_step_out_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    save_dinov2(tmp_path, **change)
    with pytest.raises(InvMMError, match="must resize, rescale by 1/255 and normalize images"):
        similarity(tmp_path)


def test_the_digest_tells_weights_apart(tmp_path: Path) -> None:
    save_dinov2(tmp_path)
    first, again = (similarity(tmp_path).settings["sha256"] for _ in range(2))
    assert first == again
    assert re.fullmatch("[0-9a-f]{64}", str(first))
    weights = load_file(tmp_path / "model.safetensors")
    weights["layernorm.bias"][0] += 1
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    assert similarity(tmp_path).settings["sha256"] != first


def test_a_threshold_must_be_given() -> None:
    with pytest.raises(InvMMError, match="no published threshold: give it one"):
        DINO(device=CPU)


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    save_dinov2(tmp_path)
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(InvMMError, match=r"cannot be loaded as .* safetensors"):
        similarity(tmp_path)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvMMError, match="cannot be loaded as an image model of transformers") as caught:
        similarity(tmp_path)
    assert "\n" not in str(caught.value)


def test_missing_weights_are_never_made_up(tmp_path: Path) -> None:
    save_dinov2(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["layernorm.bias"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(InvMMError, match=r"incomplete: it lacks weights such as layernorm\.bias"):
        similarity(tmp_path)


def test_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    ViTModel(ViTConfig(**TINY, image_size=SIDE, patch_size=14)).save_pretrained(tmp_path)
    BitImageProcessorPil().save_pretrained(tmp_path)
    with pytest.raises(InvMMError, match="is a ViTModel"):
        similarity(tmp_path)


def test_copies_are_nearer_than_other_pictures(tmp_path: Path) -> None:
    save_dinov2(tmp_path)
    dino = similarity(tmp_path)
    images = blocks(6, 3, 64, 64)
    noisy = (images + 0.02 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    values = dino.compare(dino.embed(images), dino.embed(noisy)).numpy()
    np.testing.assert_array_equal(values.argmax(axis=1), np.arange(6))
