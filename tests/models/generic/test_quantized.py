"""Networks with weights in 8 bits: their gradients are those of the whole weights, up to the rounding.

torchao and bitsandbytes are in no extra, since their imports take seconds of each process.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline, TorchAoConfig
from torch import Generator, Tensor, nn

from invmm_eval import InvMMError, load_backbone
from invmm_eval.testing import tiny


def found(model: object) -> list[Tensor]:
    """An estimate, and its gradients in x_t and in the searched prompt."""
    backbone = load_backbone(model, backbone_options={"soft_tokens": 4, "prove": "full"})
    generator = Generator().manual_seed(0)
    x_0 = backbone.encode(torch.rand(2, *backbone.image_shape, generator=generator))
    x_t = torch.randn(x_0.shape, generator=generator).requires_grad_()
    condition = backbone.condition("a cat")
    estimate = backbone.predict_x0(x_t, torch.tensor([0.8, 0.3]), condition.rsample(2, generator))
    gradients = torch.autograd.grad(estimate.square().mean(), [x_t, *condition.parameters().values()])
    return [estimate.detach(), *gradients]


def quantized(config: Any, folder: Path) -> StableDiffusion3Pipeline:
    tiny.tiny_sd3().save_pretrained(folder)
    network = SD3Transformer2DModel.from_pretrained(
        folder, subfolder="transformer", quantization_config=TorchAoConfig(config), torch_dtype=torch.float32
    )
    pipeline: StableDiffusion3Pipeline = StableDiffusion3Pipeline.from_pretrained(folder, transformer=network)
    return pipeline


def is_near(tensors: list[Tensor], expected: list[Tensor]) -> bool:
    errors = [float((a - b).norm() / b.norm()) for a, b in zip(tensors, expected, strict=True)]
    return 0 < max(errors) < 0.05


def test_a_folder_with_int8_weights_of_torchao_is_served(tmp_path: Path) -> None:
    torchao = pytest.importorskip("torchao.quantization")
    quantized(torchao.Int8WeightOnlyConfig(), tmp_path / "whole").save_pretrained(tmp_path / "int8")
    assert is_near(found(tmp_path / "int8"), found(tmp_path / "whole"))


def test_weights_and_activations_in_int8_leave_no_gradient_which_is_told(tmp_path: Path) -> None:
    torchao = pytest.importorskip("torchao.quantization")
    pipeline = quantized(torchao.Int8DynamicActivationInt8WeightConfig(), tmp_path)
    for mode in ("soft", "caption"):
        with pytest.raises(InvMMError, match=r"no gradient passes its quantised weights \(Int8Tensor\); take"):
            load_backbone(pipeline, backbone_options={"prompt_mode": mode})


def test_int8_weights_of_bitsandbytes_are_served() -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes.nn")
    pipeline = tiny.tiny_sd3()
    for name, layer in list(pipeline.transformer.named_modules()):
        if isinstance(layer, nn.Linear):
            replaced = bitsandbytes.Linear8bitLt(layer.in_features, layer.out_features, has_fp16_weights=False)
            replaced.weight = bitsandbytes.Int8Params(layer.weight.data, requires_grad=False, has_fp16_weights=False)
            replaced.bias = layer.bias
            parent, _, child = name.rpartition(".")
            setattr(pipeline.transformer.get_submodule(parent), child, replaced)
    pipeline.transformer.to("cpu")  # which quantises
    assert is_near(found(pipeline), found(tiny.tiny_sd3()))
