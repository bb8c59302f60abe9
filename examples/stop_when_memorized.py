"""Stop fine-tuning when the model has memorized a picture that it must not memorize.

The reference model is trained on eight new pictures. One of them is in the training set eight times by mistake, so it
makes up half of all draws. Every few steps the callback audits two canaries in the current model, this picture and one
that is in no training set, and stops the training when one of them is replicated.

    python examples/stop_when_memorized.py
"""

from collections.abc import Sequence

import numpy as np
import torch
from diffusers import DDPMPipeline
from torch import Tensor
from torch.nn.functional import mse_loss

from invmm_eval.integrations.torchmetrics import InvMM
from invmm_eval.reference import MODEL, THRESHOLD, pictures

COPIES = 8
BATCH = 8
AUDIT_EVERY = 50
MAX_STEPS = 300


class MemorizationWatch:
    """Audits canaries every few steps of a training.

    Args:
        pipeline: The model in training. Its weights are shared with the audit, not copied.
        canaries: uint8 ``(n, C, H, W)``.
        names: Names of the canaries.
        every: Number of steps between two audits.
    """

    def __init__(self, pipeline: DDPMPipeline, canaries: Tensor, names: Sequence[str], *, every: int) -> None:
        self._names = names
        self._every = every
        self._metric = InvMM(
            pipeline,
            recipe="demo",
            settings={"max_steps": 50, "threshold": THRESHOLD},
            similarity="pixel-cosine",
            micro_batch=64,
        )
        self._metric.update(canaries)

    def on_step_end(self, step: int) -> bool:
        """Return whether the training should stop."""
        if step % self._every:
            return False
        found = self._metric.compute()
        for name, invmm, similarity in zip(self._names, found["invmm"], found["similarity"], strict=True):
            print(f"step {step}: {name}: InvMM {invmm:.3f}, least similarity {similarity:.2f}")
        return bool(found["replicated_fraction"] > 0)


def main() -> None:
    """Fine-tune until a canary is memorized."""
    torch.manual_seed(0)
    pipeline = DDPMPipeline.from_pretrained(MODEL)
    new = [picture for picture in pictures() if picture.copies == 0]
    images = torch.stack([torch.from_numpy(np.array(picture.image)).permute(2, 0, 1) for picture in new[:9]])
    repeated, *others, never_seen = range(9)
    training_set = torch.tensor([repeated] * COPIES + others)
    names = [f"{new[repeated].name} ({COPIES} times in the set)", f"{new[never_seen].name} (not in the set)"]
    watch = MemorizationWatch(pipeline, images[[repeated, never_seen]], names, every=AUDIT_EVERY)

    x_0 = images.float() / 127.5 - 1
    optimizer = torch.optim.AdamW(pipeline.unet.parameters(), lr=1e-3)
    pipeline.unet.train()
    for step in range(1, MAX_STEPS + 1):
        batch = x_0[training_set[torch.randint(len(training_set), (BATCH,))]]
        noise = torch.randn_like(batch)
        t = torch.randint(pipeline.scheduler.config.num_train_timesteps, (BATCH,))
        x_t = pipeline.scheduler.add_noise(batch, noise, t)
        velocity = pipeline.scheduler.get_velocity(batch, noise, t)
        loss = mse_loss(pipeline.unet(x_t, t).sample, velocity)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        if watch.on_step_end(step):
            print(f"Stopped at step {step}: a canary is memorized.")
            return
    print(f"No canary was memorized in {MAX_STEPS} steps.")


if __name__ == "__main__":
    main()
