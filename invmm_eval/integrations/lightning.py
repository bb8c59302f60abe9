"""Watch a training of Lightning.

watch = Watch(canaries, training="train", every=500, out="watch")
pipeline = DDPMPipeline(module.unet, module.scheduler)
trainer = lightning.Trainer(callbacks=[WatchCallback(watch, pipeline)])
"""

from typing import Any

from diffusers import DiffusionPipeline
from lightning import Callback, Trainer

from invmm_eval.integrations.watch import Watch


class WatchCallback(Callback):
    """Checks the model before the training and every few steps, logs to the trainer's loggers, and stops the trainer.

    Args:
        watch: What is checked, and when.
        pipeline: The pipeline of the modules in training.
    """

    def __init__(self, watch: Watch, pipeline: DiffusionPipeline) -> None:
        self.watch = watch
        self.pipeline = pipeline

    def on_train_start(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        """Check the model before its training."""
        self._check(trainer)

    def on_train_batch_end(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        """Check the model after an optimizer step, if it is to be checked."""
        self._check(trainer)

    def _check(self, trainer: Trainer) -> None:
        known = len(self.watch.checks)
        if self.watch(trainer.global_step, self.pipeline):
            trainer.should_stop = True
        for check in self.watch.checks[known:]:
            for logger in trainer.loggers:
                logger.log_metrics(check.scalars, check.step)
