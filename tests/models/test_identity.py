"""The identity of a model differs where anything that decides its values does, and is the same where nothing does."""

import json
import logging
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMPipeline, DDPMScheduler, DiffusionPipeline, FlowMatchEulerDiscreteScheduler
from torch import nn
from torch.testing._internal.two_tensor import TwoTensor

from invmm_eval.models import identity
from invmm_eval.models.ddpm import DDPM
from invmm_eval.models.identity import model_identity
from invmm_eval.testing.tiny import tiny_clip_tokenizer, tiny_ddpm, tiny_sdxl, tiny_stable_diffusion


def _shifted(pipeline: Any) -> None:
    with torch.no_grad():
        next(pipeline.unet.parameters()).view(-1)[0].add_(1)


def _rescheduled(pipeline: Any) -> None:
    pipeline.scheduler = DDPMScheduler(prediction_type="v_prediction")


def _retimed(pipeline: Any) -> None:
    pipeline.scheduler.alphas_cumprod = pipeline.scheduler.alphas_cumprod**2


CHANGES: dict[str, Callable[[Any], object]] = {
    "weight": _shifted,
    "scheduler": _rescheduled,
    "noise levels": _retimed,
    "config of the scheduler": lambda p: p.scheduler.register_to_config(clip_sample=True),
    "scale of the autoencoder": lambda p: p.vae.register_to_config(scaling_factor=0.9),
    "config of the text encoder": lambda p: setattr(p.text_encoder.config, "eos_token_id", 3),
    "tokenizer": lambda p: setattr(p, "tokenizer", tiny_clip_tokenizer(words=("tree",))),
    "free-u": lambda p: p.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4),
    "attribute of a layer": lambda p: setattr(
        p.unet.down_blocks[0].attentions[0].transformer_blocks[0].attn1, "scale", 2
    ),
    "module in place of another": lambda p: setattr(p.unet, "conv_act", nn.GELU()),
    "attribute of the pipeline": lambda p: setattr(p, "vae_scale_factor", 4),
    "setting of the pipeline": lambda p: p.register_to_config(requires_safety_checker=True),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_whatever_decides_values_changes_the_identity(change: Callable[[Any], object]) -> None:
    pipeline = tiny_stable_diffusion()
    before = model_identity(pipeline)
    change(pipeline)
    after = model_identity(pipeline)
    assert before
    assert after
    assert before != after


def test_a_setting_that_only_the_pipeline_has_changes_the_identity() -> None:
    pipeline = tiny_sdxl()
    before = model_identity(pipeline)
    pipeline.register_to_config(force_zeros_for_empty_prompt=False)
    assert model_identity(pipeline) != before


class _Packed(nn.Parameter):
    """A quantised weight as those of bitsandbytes: its scale is an attribute."""

    scale: torch.Tensor


def _of_two(weight: torch.Tensor, scale: float) -> nn.Parameter:
    """A weight of two tensors, as those of torchao."""
    pair: Any = TwoTensor
    return nn.Parameter(pair(weight, torch.tensor(scale).expand(weight.shape).clone()), requires_grad=False)


def _packed(weight: torch.Tensor, scale: float) -> nn.Parameter:
    packed = _Packed(weight, requires_grad=False)
    packed.scale = torch.tensor(scale)
    return packed


@pytest.mark.parametrize("quantised", [_of_two, _packed])
def test_quantised_weights_count_with_their_scales(
    quantised: Callable[[torch.Tensor, float], nn.Parameter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "_LIBRARIES", {*identity._LIBRARIES, "tests"})
    pipeline = tiny_ddpm()
    weight = pipeline.unet.conv_in.weight.detach()
    found = {model_identity(pipeline)}
    for changed, scale in ((weight, 1.0), (weight.clone(), 1.0), (weight, 2.0), (weight + 1, 1.0)):
        pipeline.unet.conv_in.weight = quantised(changed, scale)
        found.add(model_identity(pipeline))
    assert len(found - {None}) == 4


def test_the_shift_of_a_flow_changes_the_identity_and_its_use_does_not() -> None:
    pipeline = tiny_ddpm()
    pipeline.scheduler = FlowMatchEulerDiscreteScheduler()
    before = model_identity(pipeline)
    pipeline.scheduler.set_timesteps(3)
    assert model_identity(pipeline) == before
    pipeline.scheduler.set_shift(3.0)
    assert model_identity(pipeline) != before


def test_saving_loading_sampling_and_auditing_leave_the_identity(tmp_path: Path) -> None:
    pipeline = tiny_sdxl()
    before = model_identity(pipeline)
    pipeline.save_pretrained(tmp_path)
    assert model_identity(pipeline) == before
    assert model_identity(DiffusionPipeline.from_pretrained(tmp_path)) == before
    pipeline("a cat", num_inference_steps=1, output_type="np")
    assert model_identity(pipeline.to(torch.device("cpu"))) == before
    pixels = tiny_ddpm()
    before = model_identity(pixels)
    DDPM(pixels, revision=None, device=torch.device("cpu"), dtype=torch.float32)
    pixels.unet.train()
    pixels.unet.enable_gradient_checkpointing()
    assert model_identity(pixels) == before
    pixels.unet.compile(backend="eager")
    assert model_identity(pixels) == before
    pixels = tiny_ddpm()
    pixels.unet = torch.compile(pixels.unet, backend="eager")
    assert model_identity(pixels) == before


class _Mine(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


OPAQUE: dict[str, tuple[Callable[[Any], object], str]] = {
    "module of one's own": (lambda p: setattr(p.unet, "conv_act", _Mine()), "_Mine at unet._modules.conv_act"),
    "function in place of a method": (
        lambda p: setattr(p.unet, "forward", lambda *_: None),
        "<lambda> at unet.forward",
    ),
    "hook": (lambda p: p.unet.register_forward_hook(lambda *_: None), "<lambda> at unet._forward_hooks"),
    "method of the pipeline": (lambda p: setattr(p, "encode_prompt", lambda *_: None), "its own encode_prompt"),
    "method of the scheduler": (
        lambda p: setattr(p.scheduler, "set_timesteps", lambda *_: None),
        "<lambda> at scheduler.set_timesteps",
    ),
    "offloaded": (lambda p: p.vae.to("meta"), "at vae.* \\(offloaded or quantised\\)"),
}


@pytest.mark.parametrize(("change", "reason"), OPAQUE.values(), ids=OPAQUE)
def test_what_cannot_be_known_has_no_identity_and_says_why(
    change: Callable[[Any], object], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline = tiny_stable_diffusion()
    change(pipeline)
    with caplog.at_level(logging.WARNING):
        assert model_identity(pipeline) is None
    [record] = caplog.records
    assert "cannot be known" in record.getMessage()
    assert re.search(reason, record.getMessage())


def test_a_folder_is_what_is_loaded_from_it(tiny_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "copy")
    identity = model_identity(tiny_folder)
    assert model_identity(folder) == model_identity(f"{folder}/") == identity
    (folder / "audit").mkdir()
    for stray in ("notes.json", "README.md", "audit/config.json", "unet/.hidden.json"):
        (folder / stray).write_text("{}")
    (folder / "unet" / "folder.json").mkdir()
    (folder / "unet" / "dangling.json").symlink_to("nowhere")
    os.mkfifo(folder / "unet" / "pipe.json")
    assert model_identity(folder) == identity
    for file in ("model_index.json", "scheduler/scheduler_config.json", "unet/config.json"):
        text = (folder / file).read_text()
        (folder / file).write_text(json.dumps({**json.loads(text), "more": 1}))
        assert model_identity(folder) != identity, file
        (folder / file).write_text(text)
    assert model_identity(folder) == identity
    loaded = DDIMPipeline.from_pretrained(folder)
    _shifted(loaded)
    loaded.save_pretrained(folder)
    assert model_identity(folder) != identity


def test_a_file_and_a_folder_that_is_no_pipeline_are_all_their_bytes(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    file = folder / "epoch.pt"
    file.write_bytes(b"first")
    found = [model_identity(file), model_identity(folder)]
    assert found == [model_identity(str(file)), model_identity(str(folder))]
    assert None not in found
    (folder / "audit" / "samples").mkdir(parents=True)
    for name in ("audit/results.jsonl", "audit/samples/a.png"):
        (folder / name).write_bytes(b"of an audit")
    assert [model_identity(file), model_identity(folder)] == found
    file.write_bytes(b"other")
    assert not set(found) & {model_identity(file), model_identity(folder)}


def test_a_model_that_is_nowhere_has_no_identity() -> None:
    assert model_identity("nobody/nothing") is None
    assert model_identity(object()) is None
