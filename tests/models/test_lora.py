"""LoRAs are added to a model's weights, and recorded."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import save_file

from invmm_eval import InvMMError, audit, load_backbone
from invmm_eval.models.lora import add_loras, read_loras
from invmm_eval.testing import tiny

RANK = 2
PLACE = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA of the queries of the tiny Stable Diffusion, as diffusers saves it."""
    unet = tiny.tiny_stable_diffusion().unet
    torch.manual_seed(0)
    unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, init_lora_weights=False, target_modules=["to_q"]))
    folder = tmp_path_factory.mktemp("lora")
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=get_peft_model_state_dict(unet))
    return folder / "pytorch_lora_weights.safetensors"


def queries(pipeline: StableDiffusionPipeline) -> torch.Tensor:
    weight: torch.Tensor = pipeline.unet.get_submodule(PLACE).weight
    return weight.detach()


def test_weights_are_those_of_the_model_and_the_weighted_products_of_each_lora(lora: Path) -> None:
    from safetensors.torch import load_file

    [down], [up] = (
        [tensor for name, tensor in load_file(lora).items() if PLACE in name and kind in name] for kind in ("_A", "_B")
    )
    found = queries(add_loras(tiny.tiny_stable_diffusion(), read_loras(f"{lora}:0.5, {lora}")))
    expected = queries(tiny.tiny_stable_diffusion()) + 1.5 * up @ down
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_an_audit_records_the_digest_and_the_weight(
    lora: Path, tiny_stable_diffusion_folder: Path, tmp_path: Path
) -> None:
    pixels = torch.zeros(3, tiny.SIDE, tiny.SIDE)
    settings = {"max_steps": 1, "check_every": 1, "draws": 1, "check_images": 1, "sampler_steps": 1, "guidance": (1.0,)}
    options = {"prompt_mode": "empty"}
    list(
        audit(
            tiny_stable_diffusion_folder,
            pixels,
            lora=f"{lora}:0.5",
            settings=settings,
            backbone_options=options,
            similarity="pixel-cosine",
            out=tmp_path / "audit",
        )
    )
    config = json.loads((tmp_path / "audit" / "config.json").read_text())
    digest = hashlib.sha256(lora.read_bytes()).hexdigest()
    assert config["loras"] == [{"file": lora.name, "sha256": digest, "weight": 0.5}]


def test_what_is_no_lora_of_the_model_is_told(lora: Path, tiny_stable_diffusion_folder: Path, tmp_path: Path) -> None:
    save_file({"unet.elsewhere.lora_A.weight": torch.zeros(1, 1)}, tmp_path / "other.safetensors")
    for text, sentence in (
        (tmp_path / "lora.bin", "no .safetensors file; others are never loaded"),
        (tmp_path / "lora.safetensors", "There is no LoRA"),
        (tmp_path / "other.safetensors", "LoRA .*other.safetensors"),
    ):
        with pytest.raises(InvMMError, match=sentence):
            load_backbone(tiny_stable_diffusion_folder, lora=str(text))
    with pytest.raises(InvMMError, match="takes its LoRAs before"):
        load_backbone(tiny.tiny_stable_diffusion(), lora=str(lora))
