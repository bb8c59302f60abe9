"""Loading: safetensors alone, no remote code, and a model in training stays untouched; schedulers as they are read."""

import copy
import json
import logging
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator, cpu_offload
from accelerate.state import AcceleratorState
from diffusers import DDIMPipeline, DDIMScheduler
from torch.testing._internal.two_tensor import TwoTensor

from invmm_eval.errors import InvMMError
from invmm_eval.models.identity import model_identity
from invmm_eval.models.pipelines import discrete, first_line, frozen, image_sides, load_pipeline, pipeline_class
from invmm_eval.testing import tiny
from tests.helpers.hub import Hub, Repository

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
        ("/nowhere/model.pth", "There is no file /nowhere/model.pth"),
        ("model.pth", "There is no file model.pth"),
        ("folder/model.safetensors", "There is no file folder/model.safetensors"),
        ("nobody/nothing", "neither a local folder nor a diffusers pipeline that the Hub provides"),
    ],
)
def test_no_model_there(model: object, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InvMMError, match=sentence):
        pipeline_class(model)


def test_a_name_whose_first_part_is_a_folder_here_is_a_path_until_it_is_known_to_be_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("models/seed0-step700", "models/seed1-step70", "models/else"):
        Path(name).mkdir(parents=True)
    told = (
        "There is no folder models/seed0-step7 (did you mean 'models/seed0-step700' or 'models/seed1-step70'?); models "
        "is a folder here, so for a model of the Hub name its revision, such as main."
    )
    index = Repository({"model_index.json": b'{"_class_name": "DDIMPipeline"}'})
    with Hub({"models/models/seed0-step7": index, "models/org/model": index}) as hub:
        hub.redirect(monkeypatch, tmp_path / "home")
        with pytest.raises(InvMMError, match=f"^{re.escape(told)}$"):
            pipeline_class("models/seed0-step7")
        with pytest.raises(InvMMError, match=r"^There is no folder models/else1 \(did you mean 'models/else'\?\)\.$"):
            pipeline_class(Path("models/else1"))
        assert not hub.requests
        assert pipeline_class("org/model") == "DDIMPipeline"
        assert pipeline_class("models/seed0-step7", "main") == "DDIMPipeline"
        assert pipeline_class("models/seed0-step7") == "DDIMPipeline"


def test_a_folder_without_an_index_or_with_a_damaged_one_is_no_pipeline(tmp_path: Path) -> None:
    with pytest.raises(InvMMError, match=r"has no model_index.json"):
        pipeline_class(tmp_path)
    for text in ("{", "{}", "[]", "7", 100_000 * "[", b"\xff"):
        (tmp_path / "model_index.json").write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(InvMMError, match="is damaged"):
            pipeline_class(tmp_path)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="only Linux has a file that root cannot read either")
def test_an_index_that_cannot_be_read_is_not_said_to_be_damaged(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").symlink_to("/proc/self/mem")
    with pytest.raises(InvMMError, match=r"^.*model_index\.json cannot be read: Input/output error\.$"):
        pipeline_class(tmp_path)


def test_memory_that_runs_out_for_the_weights_is_one_sentence(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nMore lines.")

    monkeypatch.setattr(torch.nn.Module, "to", refuse)
    with pytest.raises(
        InvMMError, match=r"^Memory ran out for the weights of .*; choose a smaller dtype, or offload\.$"
    ):
        load_pipeline(tiny_folder, device=CPU)


def test_a_checkpoint_of_a_training_is_told(tmp_path: Path) -> None:
    for name in ("unet", "unet_ema"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    with pytest.raises(InvMMError, match=r"holds networks alone \(unet, unet_ema\), as trainings save"):
        pipeline_class(tmp_path)


def test_a_modular_repository_is_told_from_a_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "modular_model_index.json").write_text('{"_blocks_class_name": "Flux3AutoBlocks"}')
    with Hub() as hub:
        hub.redirect(monkeypatch, tmp_path / "home")
        hub.repositories["models/org/blocks"] = Repository({"modular_model_index.json": b"{}"})
        for model in (tmp_path, "org/blocks"):
            with pytest.raises(InvMMError, match=r"modular repository .* take a repository of the same weights"):
                pipeline_class(model)


@pytest.mark.parametrize("how", ["saved", "deleted"])
def test_a_pipeline_without_one_of_its_encoders_is_loaded(how: str, tmp_path: Path) -> None:
    pipeline = tiny.tiny_sd3()
    if how == "saved":
        pipeline.register_modules(text_encoder_3=None, tokenizer_3=None)
    pipeline.save_pretrained(tmp_path)
    for part in ("text_encoder_3", "tokenizer_3") if how == "deleted" else ():
        shutil.rmtree(tmp_path / part)
    loaded = load_pipeline(tmp_path, device=CPU)
    assert loaded.text_encoder_3 is None
    assert loaded.text_encoder is not None
    shutil.rmtree(tmp_path / "transformer")
    with pytest.raises(InvMMError, match="cannot be loaded"):
        load_pipeline(tmp_path, device=CPU)


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


@pytest.mark.parametrize("sharded", [False, True])
def test_weights_that_are_stored_as_a_variant_alone_are_found_without_a_word(
    sharded: bool,
    tiny_pipeline: DDIMPipeline,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging.getLogger("diffusers"), "propagate", True)
    size = "20KB" if sharded else "1GB"
    tiny_pipeline.save_pretrained(tmp_path, variant="fp16", max_shard_size=size)
    loaded = load_pipeline(tmp_path, device=CPU).unet.state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in tiny_pipeline.unet.state_dict().items())
    assert not caplog.messages
    tiny_pipeline.save_pretrained(tmp_path, variant="bf16", max_shard_size=size)
    with pytest.raises(InvMMError, match="only as the variants bf16, fp16; keep one's files"):
        load_pipeline(tmp_path, device=CPU)
    tiny_pipeline.save_pretrained(tmp_path)
    assert load_pipeline(tmp_path, device=CPU).unet.dtype == torch.float32
    (tmp_path / "other").mkdir()
    shutil.copy(
        tmp_path / "unet" / "diffusion_pytorch_model.safetensors", tmp_path / "other" / "model.fp16.safetensors"
    )
    (tmp_path / "unet" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"another folder decides nothing")
    load_pipeline(tmp_path, device=CPU)


def test_missing_weights_are_not_called_pickles(tiny_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.unlink()
    with pytest.raises(InvMMError, match=r"cannot be loaded: (?!.*pickle)"):
        load_pipeline(folder, device=CPU)
    odd: list[Callable[[], object]] = [
        lambda: weights.symlink_to("nowhere"),
        lambda: weights.mkdir(),
        lambda: os.mkfifo(weights),
    ]
    for make in odd:
        make()
        with pytest.raises(InvMMError, match=r"unet/diffusion_pytorch_model\.safetensors is no file"):
            load_pipeline(folder, device=CPU)
        weights.rmdir() if weights.is_dir() else weights.unlink()


def test_other_files_of_any_kind_do_not_matter(tiny_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    (folder / "notes.json").mkdir()
    (folder / "unet" / "gone.json").symlink_to("nowhere")
    os.mkfifo(folder / "unet" / "pipe.json")
    assert load_pipeline(folder, device=CPU).unet.dtype == torch.float32


def test_compiled_and_parallel_modules_are_unwrapped_in_a_copy(tiny_pipeline: DDIMPipeline) -> None:
    wraps: list[Callable[[Any], Any]] = [lambda unet: torch.compile(unet, backend="eager"), torch.nn.DataParallel]
    for wrap in wraps:
        pipeline = copy.copy(tiny_pipeline)
        vars(pipeline)["unet"] = wrapped = wrap(tiny_pipeline.unet)
        assert load_pipeline(pipeline, device=CPU).unet is tiny_pipeline.unet
        assert pipeline.unet is wrapped


def test_a_module_that_accelerate_prepared_for_mixed_precision_is_read_without_it(tiny_pipeline: DDIMPipeline) -> None:
    plain, pipeline = copy.deepcopy(tiny_pipeline), copy.deepcopy(tiny_pipeline)
    AcceleratorState._reset_state(reset_partial_state=True)
    pipeline.unet = prepared = Accelerator(mixed_precision="bf16", cpu=True).prepare(pipeline.unet)
    AcceleratorState._reset_state(reset_partial_state=True)
    x_t, under_autocast = torch.randn(1, 3, 8, 8), prepared.forward
    read = frozen(load_pipeline(pipeline, device=CPU).unet)
    assert torch.equal(read(x_t, 1).sample, plain.unet(x_t, 1).sample)
    assert not torch.equal(read(x_t, 1).sample, prepared(x_t, 1).sample), "which it is in training"
    assert prepared.forward == under_autocast
    assert model_identity(pipeline) == model_identity(plain)


def test_quantised_weights_keep_their_class_and_scales_also_where_a_call_takes_them_away(
    tiny_pipeline: DDIMPipeline,
) -> None:
    """As bitsandbytes holds them: a parameter of its own class, whose scales its layer takes when it first computes."""

    class Int8Params(torch.nn.Parameter):
        SCB: float | None

    unet = copy.deepcopy(tiny_pipeline.unet)
    unet.conv_in.weight = weight = Int8Params(unet.conv_in.weight.detach(), requires_grad=False)
    weight.SCB = 2.0
    read = frozen(unet).conv_in.weight
    assert type(read) is Int8Params
    assert read.data_ptr() == weight.data_ptr()
    read.SCB = None
    assert weight.SCB == 2.0


def test_modules_with_a_replaced_forward_are_refused(tiny_pipeline: DDIMPipeline) -> None:
    offloaded, cast, empty = (copy.deepcopy(tiny_pipeline.unet) for _ in range(3))
    cpu_offload(offloaded, execution_device=CPU)
    cast.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    empty.conv_in.to("meta")
    for module in (offloaded, cast, empty):
        with pytest.raises(InvMMError, match=r"The UNet2DModel.* is offloaded, cast layer by layer or changed"):
            frozen(module)


def test_weights_of_several_tensors_are_shared_as_they_are() -> None:
    """As torchao holds them."""
    pair: Any = TwoTensor
    module = torch.nn.Linear(2, 2)
    module.weight = torch.nn.Parameter(pair(torch.ones(2, 2), torch.ones(2, 2)), requires_grad=False)
    assert frozen(module).weight is module.weight


def test_a_model_made_in_inference_mode_gives_gradients() -> None:
    with torch.inference_mode():
        module = torch.nn.Linear(2, 1)
    x = torch.ones(1, 2, requires_grad=True)
    frozen(module)(x).square().sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize("size", [None, 0, -8, 8.0, "8", True, [8], [8, 8, 8], [8, None], [8, 0], {}])
def test_a_network_without_a_usable_size_is_told(size: object) -> None:
    with pytest.raises(InvMMError, match=r"The network's config has sample_size .*; set it to the side of its input"):
        image_sides(SimpleNamespace(config={"sample_size": size}))


def test_the_size_of_images_is_the_networks(tiny_pipeline: DDIMPipeline) -> None:
    assert image_sides(SimpleNamespace(config={"sample_size": 9}), 8) == (72, 72)
    assert image_sides(SimpleNamespace(config={"sample_size": [8, 16]}), 2) == (16, 32)
    unet = copy.deepcopy(tiny_pipeline.unet)
    unet.register_to_config(sample_size=[8, 7])
    with pytest.raises(InvMMError, match="set it to multiples of 2"):
        image_sides(unet)
    with pytest.raises(RuntimeError):
        unet(torch.zeros(1, 3, 8, 7), 0)


def test_times_without_signal_are_told_when_noise_is_predicted(caplog: pytest.LogCaptureFixture) -> None:
    discrete(DDIMScheduler(rescale_betas_zero_snr=True, prediction_type="v_prediction"), CPU)
    discrete(DDIMScheduler(), CPU)
    assert not caplog.records
    cosine = DDIMScheduler(beta_schedule="squaredcos_cap_v2")
    before = discrete(cosine, CPU).schedule
    [told] = caplog.messages
    kept = int(told.split("betas[:")[1].split("]")[0])
    caplog.clear()
    after = discrete(DDIMScheduler(trained_betas=cosine.betas[:kept].tolist()), CPU).schedule
    assert not caplog.records
    times = torch.arange(kept)
    torch.testing.assert_close(after(times), before(times))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("One.\nTwo.", "One"),
        ("Wrong field:\n    it is no number.\nThree", "Wrong field: it is no number"),
        ("", "ValueError"),
    ],
)
def test_the_first_line_of_an_error_says_what_it_announces(text: str, line: str) -> None:
    assert first_line(ValueError(text)) == line
