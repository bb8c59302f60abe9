"""Quantised networks: where gradients pass, they are those of the whole weights, up to the rounding.

torchao and bitsandbytes are in no extra, since their imports take seconds of each process.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline, TorchAoConfig
from torch import Generator, Tensor, nn

from invmm_eval import InvMMError, load_backbone
from invmm_eval.models.identity import model_identity
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
    loaded, again = (StableDiffusion3Pipeline.from_pretrained(tmp_path / "int8") for _ in range(2))
    assert model_identity(loaded) == model_identity(again) is not None
    assert is_near(found(tmp_path / "int8"), found(tmp_path / "whole"))


def test_weights_and_activations_in_int8_leave_no_gradient_which_is_told(tmp_path: Path) -> None:
    torchao = pytest.importorskip("torchao.quantization")
    pipeline = quantized(torchao.Int8DynamicActivationInt8WeightConfig(), tmp_path)
    with pytest.raises(InvMMError, match=r"no gradient passes its quantised weights \(Int8Tensor\); take prompt_mode="):
        load_backbone(pipeline)
    backbone: Any = load_backbone(pipeline, backbone_options={"prompt_mode": "caption"})
    assert backbone.no_gradient == "no gradient passes its quantised weights (Int8Tensor)"


def of_bitsandbytes(layers: Any, weights: Any, **how: Any) -> StableDiffusion3Pipeline:
    pipeline = tiny.tiny_sd3()
    for name, layer in list(pipeline.transformer.named_modules()):
        if isinstance(layer, nn.Linear):
            own = layers(layer.in_features, layer.out_features, **how)
            own.weight = weights(layer.weight.data, requires_grad=False, **how)
            own.bias = layer.bias
            own.support_avx512bf16_for_cpu = False  # some CPUs would pack 4 bits, without a gradient
            pipeline.transformer.set_submodule(name, own)
    pipeline.transformer.to("cpu")  # which quantises
    return pipeline


def test_int8_weights_of_bitsandbytes_are_served() -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes.nn")
    int8, same = (
        of_bitsandbytes(bitsandbytes.Linear8bitLt, bitsandbytes.Int8Params, has_fp16_weights=False) for _ in range(2)
    )
    known = model_identity(int8)
    assert is_near(found(int8), found(tiny.tiny_sd3()))
    assert is_near(found(int8), found(tiny.tiny_sd3())), "the pipeline is not changed by an audit"
    assert model_identity(int8) == known == model_identity(same)
    same.transformer.proj_out.weight.SCB *= 2
    assert model_identity(same) != known is not None


def test_nf4_weights_of_bitsandbytes_have_the_gradients_of_the_weights_that_they_stand_for() -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    nf4 = of_bitsandbytes(bitsandbytes.nn.Linear4bit, bitsandbytes.nn.Params4bit, quant_type="nf4")
    rounded = tiny.tiny_sd3()
    for name, layer in nf4.transformer.named_modules():
        if isinstance(layer, nn.Linear):
            packed: Any = layer.weight
            weights = bitsandbytes.functional.dequantize_4bit(packed.data, packed.quant_state)
            rounded.transformer.get_submodule(name).weight.data = weights
    for tensor, expected in zip(found(nf4), found(rounded), strict=True):
        assert (tensor - expected).norm() < 1e-4 * expected.norm()
