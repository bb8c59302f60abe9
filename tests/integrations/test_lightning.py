"""The callback of Lightning: its trainer stops, and its loggers have the scalars."""

import copy
import csv
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMPipeline
from lightning import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader, TensorDataset

from invmm_eval.integrations.lightning import WatchCallback
from invmm_eval.integrations.watch import Watch
from tests.helpers.exact import Mixture, pictures

KNOWN = pictures(4)


class Training(LightningModule):
    """Memorizes the canary at its third optimizer step."""

    def __init__(self, exact: Mixture, pipeline: DDIMPipeline) -> None:
        super().__init__()
        self.exact, self.unet = exact, pipeline.unet

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.unet.parameters(), lr=0.01)

    def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
        if self.global_step == 2:
            self.exact.points = KNOWN[:2].float() / 127.5 - 1
        prediction: torch.Tensor = self.unet(batch[0], 1).sample
        return prediction.square().mean()


def test_the_trainer_stops_at_the_check_that_finds_a_memorized_canary(
    exact: Mixture, tiny_pipeline: DDIMPipeline, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    exact.points = KNOWN[2:].float() / 127.5 - 1
    pipeline = copy.deepcopy(tiny_pipeline)
    options: dict[str, Any] = {"backbone": "exact", "similarity": "pixel-cosine", "settings": {"plain": 0}}
    watch = Watch(KNOWN[:1], every=2, out=tmp_path / "watch", **options)
    trainer = Trainer(
        max_epochs=1,
        accumulate_grad_batches=2,
        accelerator="cpu",
        logger=CSVLogger(tmp_path, name="", version="log"),
        callbacks=[WatchCallback(watch, pipeline)],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Training(exact, pipeline), DataLoader(TensorDataset(torch.rand(40, 3, 8, 8)), batch_size=2))
    assert trainer.global_step == 4
    assert [check.step for check in watch.checks] == [0, 2, 4]
    assert watch.last_clean == 2
    with (tmp_path / "log" / "metrics.csv").open() as file:
        logged = {int(row["step"]): float(row["invmm/memorized"]) for row in csv.DictReader(file)}
    assert logged == {0: 0, 2: 0, 4: 1}
