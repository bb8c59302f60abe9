"""Stop fine-tuning when the model has memorized a picture.

The reference model is trained on eight new pictures. One of them is in the training set eight times by mistake, so it
makes up half of all draws. Every 50 steps the watch ranks the training pictures, searches the two most suspicious ones
and a canary that is in no training set, and stops the training when one of them is memorized.

    python examples/stop_when_memorized.py
"""

import numpy as np
import torch
from diffusers import DDPMPipeline
from torch.nn.functional import mse_loss

from invmm_eval import Source
from invmm_eval.integrations.watch import Watch
from invmm_eval.reference import MODEL, THRESHOLD, pictures

COPIES = 8
BATCH = 8
CHECK_EVERY = 50
MAX_STEPS = 300


def main() -> None:
    """Fine-tune until a picture is memorized."""
    torch.manual_seed(0)
    pipeline = DDPMPipeline.from_pretrained(MODEL)
    new = [picture for picture in pictures() if picture.copies == 0]
    *training, canary = [Source(picture.name, picture.image) for picture in new[:9]]
    print(f"{training[0].name} is in the training set {COPIES} times, {canary.name} is not in it.")
    watch = Watch(
        [canary],
        training=training,
        suspects=2,
        every=CHECK_EVERY,
        out="watch",
        log=lambda scalars, step: print(f"step {step}: {scalars}"),
        similarity="pixel-cosine",
        settings={"threshold": THRESHOLD, "plain": 0},
    )

    x_0 = torch.stack([torch.from_numpy(np.array(source.value)).permute(2, 0, 1) / 127.5 - 1 for source in training])
    training_set = torch.tensor([0] * COPIES + list(range(1, len(training))))
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
        if step % CHECK_EVERY == 0:
            pipeline.save_pretrained(f"checkpoint-{step}")
        if watch(step, pipeline):
            for result in watch.checks[-1].memorized:
                print(f"Stopped at step {step}: {result.words}")
            print(f"The last checkpoint without a memorized picture: checkpoint-{watch.last_clean}")
            return
    print(f"No picture was memorized in {MAX_STEPS} steps.")


if __name__ == "__main__":
    main()
