"""The watch of a training: it finds what was memorized, stops in time, and leaves no trace in the training."""

import copy
import gc
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from diffusers import DDIMPipeline, DiffusionPipeline
from diffusers.training_utils import EMAModel
from peft import LoraConfig
from torch import nn
from torch.distributed.fsdp import fully_shard

from invmm_eval import find_images, screen
from invmm_eval.audits.folder import read
from invmm_eval.errors import InvMMError
from invmm_eval.integrations.watch import Watch
from invmm_eval.search.status import Verdict
from invmm_eval.similarity.pixel_cosine import PixelCosine
from invmm_eval.testing.tiny import SIDE, tiny_ddpm, tiny_stable_diffusion
from tests.helpers.command import TINY, python
from tests.helpers.exact import Mixture, pictures

KNOWN = pictures(8)
CANARIES, TRAINING, REST = KNOWN[:2], KNOWN[2:6], KNOWN[6:]
QUICK: dict[str, Any] = {"backbone": "exact", "similarity": "pixel-cosine", "settings": {"plain": 0}}
SHORT: dict[str, Any] = {**TINY, "max_steps": 1, "responses": 2, "plain": 0, "estimators": (), "confirm": 2}
SHORT |= {"threshold": -1.0, "guidance": (1.0,)}
"""Every sample counts as a copy, so that all phases of a search run."""


def learn(model: Mixture, pipeline: DiffusionPipeline, points: torch.Tensor, weights: list[float]) -> None:
    """Other weights, in the model whose truth is known and in the pipeline that gives it its identity."""
    model.points = points.float() / 127.5 - 1
    model.log_weights = torch.tensor(weights).log()
    with torch.no_grad():
        next(pipeline.unet.parameters()).add_(0.125)


def test_what_becomes_memorized_stops_the_training_at_the_next_check(
    exact: Mixture, tiny_pipeline: DDIMPipeline, tmp_path: Path
) -> None:
    pipeline, logged = copy.deepcopy(tiny_pipeline), []
    training = [*TRAINING[:1], *TRAINING]
    watch = Watch(
        CANARIES,
        training=training,
        suspects=2,
        every=2,
        out=tmp_path,
        stop_at=2,
        log=lambda scalars, step: logged.append((step, scalars)),
        **QUICK,
    )
    told = []
    for step in range(8):
        if step == 3:
            learn(exact, pipeline, torch.cat([CANARIES[1:], REST]), [0.2, 0.4, 0.4])
        if step == 5:
            learn(exact, pipeline, torch.cat([CANARIES[1:], TRAINING[2:3], REST[:1]]), [0.2, 0.3, 0.5])
        elif step == 0:
            learn(exact, pipeline, REST, [0.5, 0.5])
        told.append(watch(step, pipeline))
        assert not watch(step, pipeline), "a step is checked once, also where gradients are accumulated"
    assert told == [False] * 6 + [True, False]
    assert [check.step for check in watch.checks] == [0, 2, 4, 6]
    assert [len(check.memorized) for check in watch.checks] == [0, 0, 1, 2]
    assert watch.last_clean == 2
    last = watch.checks[-1]
    assert [result.verdict for result in last.canaries] == [Verdict.NOT_REPLICATED, Verdict.MEMORIZED]
    scores = screen(pipeline, training, backbone="exact")
    assert scores[0].index == 3, "the picture that it knows"
    assert [result.digest for result in last.suspects] == [scores[0].digest, scores[1].digest]
    assert [step for step, _ in logged] == [0, 2, 4, 6]
    scalars = logged[-1][1]
    assert scalars["invmm/memorized"] == 2
    assert scalars["invmm/failed"] == 0
    assert scalars["invmm/canaries_memorized_fraction"] == 0.5
    assert scalars["invmm/largest_share"] == pytest.approx(0.3, abs=0.15)
    values = sorted(score.score or 0.0 for score in scores)
    assert [scalars[f"invmm/score_q{q}"] for q in (50, 100)] == pytest.approx([values[2], values[-1]])


def test_known_values_are_those_of_the_same_weights(
    exact: Mixture, tiny_pipeline: DDIMPipeline, tmp_path: Path
) -> None:
    pipeline = copy.deepcopy(tiny_pipeline)

    def restarted(*, memorized: bool) -> int:
        """The rows that a training costs which is started again and comes to step 10."""
        exact.rows_seen.clear()
        assert Watch(CANARIES, training=TRAINING, every=5, out=tmp_path, **QUICK)(10, pipeline) is memorized
        return sum(exact.rows_seen)

    learn(exact, pipeline, REST, [0.5, 0.5])
    assert restarted(memorized=False) > 0
    assert restarted(memorized=False) == 0, "nothing is computed again"
    learn(exact, pipeline, torch.cat([CANARIES, REST]), [0.25] * 4)
    assert restarted(memorized=True) > 0
    first, second = sorted(tmp_path.iterdir(), key=lambda folder: folder.stat().st_ctime)
    assert first.name[:12] == second.name[:12] == "step-000010-"
    assert read(first).config["weights"] != read(second).config["weights"]
    assert sorted(row["name"] for row in read(first).rows)[:2] == ["0", "0"]
    assert (second / "screening.jsonl").exists()


def pixels() -> DiffusionPipeline:
    pipeline = tiny_ddpm()
    for block in pipeline.unet.mid_block.resnets:
        block.dropout.p = 0.1
    pipeline.unet.train()
    return pipeline


def lora() -> DiffusionPipeline:
    """Two adapters, of which one is active, on a frozen model."""
    torch.manual_seed(0)
    pipeline = tiny_stable_diffusion()
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        part.requires_grad_(False)
    for name in ("other", "own"):
        config = LoraConfig(r=2, init_lora_weights="gaussian", target_modules=["to_q", "to_v"], lora_dropout=0.1)
        pipeline.unet.add_adapter(config, adapter_name=name)
    pipeline.unet.set_adapter("own")
    pipeline.unet.train()
    return pipeline


def mixed() -> DiffusionPipeline:
    """The same with the text encoder in half precision."""
    pipeline = lora()
    pipeline.text_encoder.to(torch.bfloat16)
    return pipeline


class Careless(PixelCosine):
    """A similarity, as of a plugin, that draws random numbers of everybody."""

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        random.random()
        np.random.rand()
        torch.rand(1)
        return super().embed(images)


def trained(pipeline: Any, watch: Callable[[int, Any], bool]) -> tuple[dict[str, Any], dict[str, Any]]:
    """All that a training of two steps leaves, with a call of the watch in the middle of each."""
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    unet = pipeline.unet
    weights = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-2)
    average = EMAModel(unet.parameters(), decay=0.5)
    channels = unet.config.in_channels
    given = {}
    if unet.config.get("cross_attention_dim"):
        given["encoder_hidden_states"] = torch.randn(2, 77, unet.config.cross_attention_dim)
    for step in (1, 2):
        shifted = random.random() + np.random.rand()
        noise = torch.randn(2, channels, unet.config.sample_size, unet.config.sample_size)
        t = torch.randint(1000, (2,))
        x_t = pipeline.scheduler.add_noise(torch.full_like(noise, shifted), noise, t)
        with torch.autocast("cpu", torch.bfloat16):
            loss = (unet(x_t, t, **given).sample.float() - noise).square().mean()
            optimizer.zero_grad()
            loss.backward()
            with torch.no_grad():
                watch(step, pipeline)
                assert not torch.is_grad_enabled()
            assert torch.is_autocast_enabled("cpu")
        optimizer.step()
        average.step(unet.parameters())
    parts = [part for part in pipeline.components.values() if isinstance(part, nn.Module)]
    modules = [module for part in parts for module in part.modules()]
    tensors = {
        "weights": {name: value.clone() for part in parts for name, value in part.state_dict().items()},
        "gradients": [None if p.grad is None else p.grad.clone() for part in parts for p in part.parameters()],
        "optimizer": [value for state in optimizer.state.values() for value in state.values()],
        "average": average.shadow_params,
        "random": [random.random(), np.random.rand(), torch.rand(1)],
    }
    return tensors, {
        "modes": [module.training for module in modules],
        "trainable": [(p.requires_grad, p.dtype) for part in parts for p in part.parameters()],
        "hooks": [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules],
        "own methods": ["forward" in vars(module) for module in modules],
        "scheduler": {name: str(value) for name, value in vars(pipeline.scheduler).items()},
    }


def nothing(_: int, __: Any) -> bool:
    return False


def living() -> int:
    """Tensors and modules that exist."""
    return sum(isinstance(one, torch.Tensor | nn.Module) for one in gc.get_objects())


@pytest.mark.parametrize(
    ("make", "how"),
    [(pixels, {}), (mixed, {}), (lora, {"backbone": "diffusers"})],
    ids=["pixels", "lora", "any pipeline"],
)
def test_a_training_is_the_same_bit_for_bit_with_and_without(
    make: Callable[[], DiffusionPipeline], how: dict[str, Any], tmp_path: Path
) -> None:
    images = pictures(2, (3, SIDE, SIDE))
    options = {"settings": SHORT, "similarity": Careless(device=torch.device("cpu")), **how}
    watch = Watch(images[:1], training=images, suspects=1, every=1, out=tmp_path, **options)
    expected = trained(make(), nothing)
    pipeline = make()
    tensors, others = trained(pipeline, watch)
    torch.testing.assert_close(tensors, expected[0], rtol=0, atol=0)
    assert others == expected[1]
    assert [check.scalars["invmm/failed"] for check in watch.checks] == [0, 0]
    assert len({json.dumps(check.scalars) for check in watch.checks}) == 2, "each is of the weights of its step"
    watch.checks.clear()
    before = living()
    watch(3, pipeline)
    watch.checks.clear()
    assert living() <= before


def test_a_check_in_the_middle_of_a_step_is_that_of_the_model_without_autocast(tmp_path: Path) -> None:
    pipeline = pixels()
    images = pictures(2, (3, SIDE, SIDE))
    watch = Watch(images[:1], training=images, suspects=1, every=1, out=tmp_path, settings=SHORT)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        watch(1, pipeline)
    watch(2, pipeline)
    inside, outside = (
        [(r.plain_share, r.similarity, r.noise["mu"].tolist()) for r in (*check.canaries, *check.suspects)]
        for check in watch.checks
    )
    assert inside == outside
    assert watch.checks[0].scalars == watch.checks[1].scalars


def test_the_averaged_weights_are_watched_where_they_are_put_in_their_place(tmp_path: Path) -> None:
    pipeline = pixels()
    average = EMAModel(pipeline.unet.parameters())
    with torch.no_grad():
        for parameter in pipeline.unet.parameters():
            parameter.mul_(1.5)
    own = copy.deepcopy(pipeline.unet.state_dict())
    training = pictures(1, (3, SIDE, SIDE))
    watch = Watch(training=training, suspects=0, every=1, out=tmp_path)
    watch(1, pipeline)
    average.store(pipeline.unet.parameters())
    average.copy_to(pipeline.unet.parameters())
    watch(2, pipeline)
    average.restore(pipeline.unet.parameters())
    torch.testing.assert_close(pipeline.unet.state_dict(), own, rtol=0, atol=0)
    scores = [check.scalars["invmm/score_q100"] for check in watch.checks]
    assert scores == [screen(model, training)[0].score for model in (pipeline, pixels())]


@pytest.mark.usefixtures("exact")
def test_scalars_go_to_every_tracker_of_accelerate(
    tiny_pipeline: DDIMPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from trackio.sqlite_storage import SQLiteStorage
    from wandb.sdk.lib import proto_util

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setattr("trackio.sqlite_storage.TRACKIO_DIR", tmp_path / "trackio")
    monkeypatch.chdir(tmp_path)
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(log_with=["tensorboard", "wandb", "trackio"], project_dir=tmp_path, cpu=True)
    accelerator.init_trackers("training")
    watch = Watch(CANARIES, training=TRAINING, every=5, out=tmp_path / "watch", log=accelerator.log, **QUICK)
    assert watch(5, tiny_pipeline)
    run = accelerator.get_tracker("wandb", unwrap=True)
    accelerator.end_training()
    AcceleratorState._reset_state(reset_partial_state=True)
    [check] = watch.checks
    assert proto_util.dict_from_proto_list(run._final_summary.item).items() >= check.scalars.items()
    events = EventAccumulator(str(tmp_path / "training")).Reload()
    for name, value in check.scalars.items():
        [scalar] = events.Scalars(name)
        assert (scalar.step, scalar.value) == (5, pytest.approx(value))
    [name] = SQLiteStorage.get_runs("training")
    [row] = SQLiteStorage.get_logs("training", name)
    assert row["step"] == 5
    assert {key: row[key] for key in check.scalars} == check.scalars


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "nothing to watch": ({"canaries": []}, "no image to watch; give canaries, training images or both"),
    "no steps": ({"every": 0}, "every is 0; it must be a whole number, at least 1"),
    "never memorized": ({"stop_at": 0.5}, "stop_at is 0.5; it must be a whole number"),
    "a recipe without a share": ({"recipe": "demo"}, "does not estimate the share of plain samples"),
    "a detector that is unknown": ({"detector": "guess"}, "guess"),
    "an option that the pipeline decides": ({"dtype": "float16"}, "There is no option 'dtype'"),
    "a folder that is none": ({"canaries": "nowhere"}, "'nowhere' cannot be opened"),
}


@pytest.mark.parametrize(("wrong", "sentence"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_told_before_the_training(wrong: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(InvMMError, match=sentence):
        Watch(**{"canaries": CANARIES, "every": 1, "out": tmp_path, **wrong})


def test_a_failed_search_is_told_and_stops_nothing(
    tiny_pipeline: DDIMPipeline, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline = copy.deepcopy(tiny_pipeline)
    nn.init.constant_(pipeline.unet.conv_out.bias, torch.nan)
    watch = Watch(pictures(1, (3, 8, 8)), every=1, out=tmp_path, settings=SHORT)
    assert not watch(3, pipeline)
    assert watch.checks[0].scalars == {"invmm/memorized": 0.0, "invmm/failed": 1.0}
    assert "At step 3: the search of 0 failed: The model's estimates of x_0 are not finite" in caplog.text


def test_a_sharded_model_is_watched_in_the_folder_where_it_was_saved(
    tiny_pipeline: DDIMPipeline, tiny_folder: Path, tmp_path: Path
) -> None:
    pipeline = copy.deepcopy(tiny_pipeline)
    watch = Watch(pictures(1, (3, 8, 8)), every=1, out=tmp_path, settings=SHORT)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        fully_shard(pipeline.unet)
        with pytest.raises(InvMMError, match=r"The weights of the .*UNet2DModel are sharded over processes; save the"):
            watch(1, pipeline)
    finally:
        torch.distributed.destroy_process_group()
    watch(2, tiny_folder)
    [check] = watch.checks
    assert (check.step, check.scalars["invmm/failed"]) == (2, 0)


RANKS = """
import os, sys, json
import torch
from torch import distributed
from torch.distributed import TCPStore
from diffusers import DDIMPipeline
from invmm_eval.audits import plan
from invmm_eval.audits.whole import screening
from invmm_eval.integrations import watch as watching
from tests.helpers.command import TINY, python
from tests.helpers.exact import Mixture, pictures

folder, model = sys.argv[1:]
store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(store.port), "WORLD_SIZE": "2"}
os.environ |= {"TORCHELASTIC_USE_AGENT_STORE": "True"}
known = pictures(8)
rank = int(os.fork() == 0)
os.environ["RANK"] = os.environ["LOCAL_RANK"] = str(rank)
distributed.init_process_group("gloo")
exact = Mixture(known)
watching.load = plan.load = screening.load = lambda *_: exact
pipeline = DDIMPipeline.from_pretrained(model)
pipeline.unet = torch.nn.parallel.DistributedDataParallel(pipeline.unet)
found = []
for place in ("alone", "together"):
    if place == "together":
        os.environ["TORCHELASTIC_RUN_ID"] = "run"
    exact.rows_seen.clear()
    options = {"similarity": "pixel-cosine", "settings": {"plain": 0}, "suspects": 1}
    watch = watching.Watch(known[:2], training=known[2:5], every=2, out=f"{folder}/{place}", **options)
    told = [watch(step, pipeline) for step in (1, 2)]
    rows = sum(exact.rows_seen)
    found.append({"told": told, "rows": rows, "scalars": [check.scalars for check in watch.checks]})
with open(f"{folder}/{rank}.json", "w") as file:
    json.dump(found, file)
distributed.barrier()
os.waitpid(-1, 0) if rank == 0 else os._exit(0)
"""


def test_ranks_share_the_work_or_wait_for_the_first_and_all_stop(tiny_folder: Path, tmp_path: Path) -> None:
    code, _, err = python(RANKS, tmp_path, tiny_folder, PYTHONWARNINGS="ignore")
    assert code == 0, err
    (alone, together), others = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    told = [False, True]
    assert [one["told"] for one in (alone, together, *others)] == [told] * 4
    assert [bool(one["rows"]) for one in (alone, *others)] == [True, False, True]
    assert others[0]["scalars"] == others[1]["scalars"] == []
    assert alone["scalars"] == together["scalars"]
    assert len(alone["scalars"]) == 1


def test_captions_come_with_the_images(tmp_path: Path) -> None:
    images = find_images(pictures(2, (3, SIDE, SIDE)), captions=["a red cat", "a blue dog"])
    options: dict[str, Any] = {"backbone_options": {"prompt_mode": "caption"}, "settings": SHORT}
    watch = Watch(images[:1], training=images, suspects=2, every=1, out=tmp_path, **options)
    watch(0, tiny_stable_diffusion())
    [check] = watch.checks
    assert [result.prompt for result in check.canaries] == ["a red cat"]
    assert [result.prompt for result in check.suspects] == ["a blue dog"]
