"""The training loop of all models that the benchmarks train."""

import time
from collections.abc import Callable, Sequence

import torch
from diffusers.optimization import get_cosine_schedule_with_warmup
from diffusers.training_utils import EMAModel
from torch import Tensor, nn


def fit(
    parameters: Sequence[nn.Parameter],
    loss: Callable[[], Tensor],
    *,
    steps: int,
    rate: float,
    warmup: int = 100,
    name: str = "",
) -> EMAModel:
    """Minimize ``loss()``, which draws its own batch, with AdamW; returns the averaged weights."""
    average = EMAModel(parameters, decay=0.999, use_ema_warmup=True, power=0.75, foreach=True)
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=1e-4)
    schedule = get_cosine_schedule_with_warmup(optimizer, num_warmup_steps=warmup, num_training_steps=steps)
    mean, started = 0.0, time.monotonic()
    for step in range(1, steps + 1):
        value = loss()
        optimizer.zero_grad()
        torch.autograd.backward(value)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        average.step(parameters)
        mean += (value.item() - mean) / min(step, 100)
        if step % 250 == 0 or step == steps:
            print(f"{name}: step {step} of {steps}, loss {mean:.4f}, {time.monotonic() - started:.0f} s", flush=True)
    return average
