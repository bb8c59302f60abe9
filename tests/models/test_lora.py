"""LoRAs are added to a model's weights, whatever program saved them, and recorded."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.training_utils import _collate_lora_metadata
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor

from invmm_eval import InvMMError, load_backbone
from invmm_eval.audits.options import Choices, ModelOptions
from invmm_eval.audits.plan import make_plan
from invmm_eval.models.lora import add_loras, read_loras
from invmm_eval.testing import tiny
from tests.helpers.hub import Hub, Repository

RANK = 2
PLACE = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
ENCODER_PLACE = "encoder.layers.0.self_attn.q_proj"


def saved(folder: Path, alpha: int) -> Path:
    """A LoRA of the queries of the tiny Stable Diffusion, as diffusers' scripts save it."""
    unet = tiny.tiny_stable_diffusion().unet
    torch.manual_seed(0)
    unet.add_adapter(LoraConfig(r=RANK, lora_alpha=alpha, init_lora_weights=False, target_modules=["to_q"]))
    scales = _collate_lora_metadata({"unet": unet})
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=get_peft_model_state_dict(unet), **scales)
    return folder / "pytorch_lora_weights.safetensors"


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("lora"), RANK)


def weights(pipeline: Any) -> list[Tensor]:
    places = pipeline.unet.get_submodule(PLACE), pipeline.text_encoder.get_submodule(ENCODER_PLACE)
    return [place.weight.detach() for place in places]


def with_loras(text: str | Path) -> list[Tensor]:
    pipeline = tiny.tiny_stable_diffusion()
    add_loras(pipeline, read_loras(str(text)))
    return weights(pipeline)


def product(tensors: Mapping[str, Tensor], place: str, up: str, down: str) -> Tensor:
    [high], [low] = (
        [tensor for name, tensor in tensors.items() if place in name and kind in name] for kind in (up, down)
    )
    return high @ low


def test_weights_are_those_of_the_model_and_the_weighted_products_of_each_lora(lora: Path) -> None:
    found, encoder = with_loras(f"{lora}:0.5, {lora.parent}")
    before = weights(tiny.tiny_stable_diffusion())
    expected = before[0] + 1.5 * product(load_file(lora), PLACE, "_B", "_A")
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(encoder, before[1])


def test_the_scale_in_the_header_of_a_file_counts(tmp_path: Path) -> None:
    file = saved(tmp_path, 4 * RANK)
    expected = weights(tiny.tiny_stable_diffusion())[0] + 4 * product(load_file(file), PLACE, "_B", "_A")
    torch.testing.assert_close(with_loras(file)[0], expected, atol=1e-5, rtol=1e-5)


def test_a_lora_in_the_layout_of_kohya_also_changes_the_text_encoder(lora: Path, tmp_path: Path) -> None:
    before = weights(tiny.tiny_stable_diffusion())
    network, encoder = f"lora_unet_{PLACE}", f"lora_te_text_model_{ENCODER_PLACE}"
    torch.manual_seed(0)
    tensors = {}
    output = encoder.replace("q_proj", "out_proj")  # diffusers recognizes the layout by it
    network_shape, *_ = (weight.shape for weight in before)
    for place, shape in ((network, network_shape), (encoder, (16, 16)), (output, (16, 16))):
        name = place.replace(".", "_")
        tensors[f"{name}.lora_up.weight"] = torch.randn(shape[0], RANK)
        tensors[f"{name}.lora_down.weight"] = torch.randn(RANK, shape[1])
        tensors[f"{name}.alpha"] = torch.tensor(0.5 * RANK)
    save_file(tensors, tmp_path / "kohya.safetensors")
    found = with_loras(f"{tmp_path / 'kohya.safetensors'}:2,{lora}:0")
    for weight, old, place in zip(found, before, (network, encoder), strict=True):
        added = product(tensors, place.replace(".", "_"), "lora_up", "lora_down")
        torch.testing.assert_close(weight, old + added, atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("error")
def test_weights_that_diffusers_leaves_out_are_reported_and_nothing_else(
    lora: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with_loras(f"{lora},{lora}")
    assert not caplog.messages
    tensors = load_file(lora)
    older = {name: name.replace("lora_A", "lora.down").replace("lora_B", "lora.up") for name in tensors}
    mixed = {older[name] if "attn2" in name else name: tensor for name, tensor in tensors.items()}
    save_file(mixed, tmp_path / "mixed.safetensors")
    with_loras(tmp_path / "mixed.safetensors")
    [told] = caplog.messages
    assert f"to {len(tensors) // 4} layers, but it is for {len(tensors) // 2};" in told


def test_a_lora_of_the_hub_is_the_only_file_of_its_repository_or_the_named_one(
    lora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Hub() as hub:
        hub.redirect(monkeypatch, tmp_path / "home")
        other = saved(tmp_path, 2 * RANK).read_bytes()
        hub.repositories["models/org/one"] = Repository({"README.md": b"", "a.safetensors": lora.read_bytes()})
        hub.repositories["models/org/two"] = Repository({"a.safetensors": lora.read_bytes(), "b.safetensors": other})
        names = "org/one:0.5,org/two/b.safetensors"
        found = [(file.read_bytes(), weight) for file, weight in read_loras(names)]
        assert found == [(lora.read_bytes(), 0.5), (other, 1.0)]
        with pytest.raises(InvMMError, match=r"org/two has 2 .safetensors files; name the LoRA itself"):
            read_loras("org/two")
        with pytest.raises(
            InvMMError, match=r"The LoRA org/three is not a local file or folder, and the Hub does not provide it"
        ):
            read_loras("org/three")


def test_the_config_has_the_digest_and_the_weight(lora: Path, tiny_stable_diffusion_folder: Path) -> None:
    model = ModelOptions(source=tiny_stable_diffusion_folder, lora=f"{lora}:0.5")
    config = make_plan(model, Choices(similarity="pixel-cosine")).config
    digest = hashlib.sha256(lora.read_bytes()).hexdigest()
    assert config["loras"] == [{"file": lora.name, "sha256": digest, "weight": 0.5}]


def test_what_is_no_lora_of_the_model_is_told(lora: Path, tiny_stable_diffusion_folder: Path, tmp_path: Path) -> None:
    for name in ("other", "another"):
        save_file({"unet.elsewhere.lora_A.weight": torch.zeros(1, 1)}, tmp_path / f"{name}.safetensors")
    save_file({f"base_model.model.{PLACE}.lora_A.weight": torch.zeros(1, 1)}, tmp_path / "peft.safetensors")
    (tmp_path / "lora.bin").touch()
    for text, sentence in (
        (tmp_path / "lora.bin", "no .safetensors file; others are never loaded"),
        (tmp_path / "lora.safetensors", "There is no LoRA"),
        (tmp_path / "other.safetensors", "LoRA .*other.safetensors"),
        (tmp_path / "peft.safetensors", "has no weights for this StableDiffusionPipeline; one of peft alone is made"),
        (tmp_path, "has 3 .safetensors files; name the LoRA itself"),
        ("loras/lora.safetensors", "There is no LoRA loras/lora.safetensors"),
        (f"{lora}:half", "weight of the LoRA .* is 'half'; give a number"),
        (f"{lora}:nan", "weight of the LoRA .* is 'nan'; give a number"),
    ):
        with pytest.raises(InvMMError, match=sentence):
            load_backbone(tiny_stable_diffusion_folder, lora=str(text))
    for model in (lora, lora.parent):
        with pytest.raises(InvMMError, match="is a LoRA; name the model that it was trained on by --model"):
            load_backbone(model)
    with pytest.raises(InvMMError, match="takes its LoRAs and tokens before"):
        load_backbone(tiny.tiny_stable_diffusion(), lora=str(lora))
