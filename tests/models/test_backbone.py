"""Loading: safetensors alone, no remote code, and a model in training stays untouched; schedulers as they are read."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler

from invmm_eval.errors import InvMMError
from invmm_eval.models.pipelines import frozen, load_pipeline, pipeline_class, rectified_flow

CPU = torch.device("cpu")


def test_a_frozen_view_shares_weights_and_leaves_the_module_alone() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2), torch.nn.Dropout(0.5)).train()
    view = frozen(module)
    assert [p.data_ptr() for p in view.parameters()] == [p.data_ptr() for p in module.parameters()]
    assert not any(p.requires_grad for p in view.parameters())
    assert all(p.requires_grad for p in module.parameters())
    assert module.training
    assert not view.training
    x = torch.ones(3, 2)
    before = view(x)
    with torch.no_grad():
        module.get_parameter("0.bias").add_(1)
    assert not torch.equal(view(x), before)
    view(x.requires_grad_()).sum().backward()
    assert x.grad is not None
    assert all(p.grad is None for p in module.parameters())


def test_the_class_of_a_pipeline(tiny_pipeline: DDIMPipeline, tiny_folder: Path) -> None:
    assert pipeline_class(tiny_pipeline) == pipeline_class(tiny_folder) == pipeline_class(str(tiny_folder))
    assert pipeline_class(tiny_folder) == "DDIMPipeline"


def test_a_folder_is_loaded_in_the_precision_asked_for_and_a_pipeline_stays_as_it_is(
    tiny_pipeline: DDIMPipeline, tiny_folder: Path
) -> None:
    assert load_pipeline(tiny_folder, device=CPU, dtype=torch.bfloat16).unet.dtype == torch.bfloat16
    assert load_pipeline(tiny_pipeline, device=CPU, dtype=torch.bfloat16) is tiny_pipeline
    assert tiny_pipeline.unet.dtype == torch.float32


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (3, "not a int"),
        ("/nowhere/at/all", "There is no folder /nowhere/at/all"),
        ("./nowhere", "There is no folder ./nowhere"),
        ("nobody/nothing", "neither a folder here nor a diffusers pipeline that the Hub gave"),
    ],
)
def test_no_model_there(model: object, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InvMMError, match=sentence):
        pipeline_class(model)


def test_a_folder_without_an_index_or_with_a_damaged_one_is_no_pipeline(tmp_path: Path) -> None:
    with pytest.raises(InvMMError, match=r"has no model_index.json"):
        pipeline_class(tmp_path)
    for text in ("{", "{}", "[]", "7"):
        (tmp_path / "model_index.json").write_text(text)
        with pytest.raises(InvMMError, match="is damaged"):
            pipeline_class(tmp_path)


def test_code_of_its_own_is_never_run(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": ["pipeline", "Mine"]}))
    (tmp_path / "pipeline.py").write_text("raise SystemExit('remote code was run')")
    with pytest.raises(InvMMError, match="brings its own pipeline code"):
        pipeline_class(tmp_path)


def test_a_pickle_is_never_loaded(tiny_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "pickled")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()

    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (eval, ("(_ for _ in ()).throw(SystemExit('a pickle was loaded'))",))

    torch.save(Bomb(), folder / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(InvMMError, match="pickled ones are never loaded"):
        load_pipeline(folder, device=CPU)


def test_weights_of_the_wrong_shape_or_length(tiny_folder: Path, tmp_path: Path) -> None:
    wrong, short = (shutil.copytree(tiny_folder, tmp_path / name) / "unet" for name in ("wrong", "short"))
    config = json.loads((wrong / "config.json").read_text())
    (wrong / "config.json").write_text(json.dumps(config | {"block_out_channels": [16, 16]}))
    with pytest.raises(InvMMError, match="cannot be loaded"):
        load_pipeline(wrong.parent, device=CPU)
    weights = short / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InvMMError, match=r"cannot be loaded|no usable safetensors"):
        load_pipeline(short.parent, device=CPU)


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("steps", [1, 5])
def test_a_flow_is_sampled_at_the_levels_of_its_scheduler(shift: float, steps: int) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    flow = rectified_flow(scheduler, CPU, tokens=16)
    scheduler.set_timesteps(steps)
    torch.testing.assert_close(flow.grid(steps), scheduler.sigmas, atol=0, rtol=0)
    given = [1 - step / steps for step in range(steps)]
    flow = rectified_flow(scheduler, CPU, tokens=16, unshifted=lambda _: given)
    scheduler.set_timesteps(sigmas=given)
    torch.testing.assert_close(flow.grid(steps), scheduler.sigmas, atol=0, rtol=0)


@pytest.mark.parametrize(("tokens", "mu"), [(256, 0.5), (4096, 1.15), (2176, 0.825)])
def test_a_dynamic_shift_goes_by_the_length_of_the_sequence(tokens: int, mu: float) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    flow = rectified_flow(scheduler, CPU, tokens=tokens)
    drawn = flow.draw(1000, torch.Generator().manual_seed(0))
    unshifted = drawn / (drawn + math.exp(mu) * (1 - drawn))
    torch.testing.assert_close(unshifted, (unshifted * 1000).round() / 1000, atol=1e-5, rtol=0)
    scheduler.set_timesteps(5, mu=mu)
    torch.testing.assert_close(flow.grid(5), scheduler.sigmas)


@pytest.mark.parametrize(
    "scheduler",
    [DDIMScheduler(), FlowMatchHeunDiscreteScheduler(), FlowMatchEulerDiscreteScheduler(invert_sigmas=True)],
)
def test_a_scheduler_that_is_no_rectified_flow(scheduler: object) -> None:
    with pytest.raises(InvMMError, match=f"{type(scheduler).__name__} is not supported as a rectified flow"):
        rectified_flow(scheduler, CPU, tokens=16)
