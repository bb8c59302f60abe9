"""How all models of the benchmarks are trained."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from diffusers import DDIMScheduler, UNet2DModel
from diffusers.optimization import get_cosine_schedule_with_warmup
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from tqdm import tqdm


def fit(
    networks: Iterable[nn.Module], loss: Callable[[], Tensor], *, steps: int, rate: float, name: str, warmup: int = 100
) -> None:
    """Minimize ``loss()``, which draws its own batch, with AdamW; the weights end averaged along training (EMA)."""
    every = nn.ModuleList(networks).train()
    weights = list(every.parameters())
    average = EMAModel(weights, decay=0.999, use_ema_warmup=True, power=0.75, foreach=True)
    optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=1e-4)
    schedule = get_cosine_schedule_with_warmup(optimizer, num_warmup_steps=warmup, num_training_steps=steps)
    for _ in (bar := tqdm(range(steps), name, mininterval=5)):
        value = loss()
        optimizer.zero_grad()
        torch.autograd.backward(value)
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        average.step(weights)
        bar.set_postfix(loss=value.item(), refresh=False)
    average.copy_to(weights)
    every.eval()


def fit_velocity(
    unet: UNet2DModel, noising: DDIMScheduler, images: Tensor, *, batch: int, bfloat16: bool, **how: Any
) -> None:
    """:func:`fit` the velocity ``v = alpha_t n - sigma_t x_0`` of images ``(n, C, H, W)`` in [-1, 1].

    Salimans and Ho 2022, "Progressive Distillation for Fast Sampling of Diffusion Models", appendix D. An error in a
    predicted noise is multiplied by sigma_t / alpha_t in x_0. That is 157 at the noisiest of 1,000 linear steps, where
    a small network's error in the noise, 0.03, becomes one in x_0 many times larger than the picture, and the search
    for q sees nothing else.
    """

    def loss() -> Tensor:
        x_0 = images[torch.randint(len(images), (batch,))]
        t = torch.randint(noising.config.num_train_timesteps, (batch,), device=images.device)
        n = torch.randn_like(x_0)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=bfloat16):
            velocity = unet(noising.add_noise(x_0, n, t), t).sample
        return mse_loss(velocity.float(), noising.get_velocity(x_0, n, t))

    fit([unet], loss, **how)
