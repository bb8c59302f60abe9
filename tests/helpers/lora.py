"""A LoRA, trained by the recipe of diffusers' train_text_to_image_lora.py."""

from pathlib import Path

import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline
from peft import LoraConfig, get_peft_model_state_dict
from torch import Generator, Tensor

TARGETS = ["to_k", "to_q", "to_v", "to_out.0", "conv1", "conv2", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"]


def train_lora(
    model: Path, images: Tensor, captions: list[str], folder: Path, *, steps: int, rank: int = 32, rate: float = 1e-2
) -> Path:
    """Train a LoRA of the denoiser on images ``(n, 3, H, W)`` in [-1, 1] until it copies; returns its file."""
    pipeline = StableDiffusionPipeline.from_pretrained(model, dtype=torch.float32)
    unet = pipeline.unet.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=TARGETS))
    weights = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
    generator = Generator().manual_seed(0)
    with torch.no_grad():
        x_0 = pipeline.vae.encode(images).latent_dist.mode() * pipeline.vae.config.scaling_factor
        hidden, _ = pipeline.encode_prompt(captions, torch.device("cpu"), 1, False)
    for _ in range(steps):
        index = torch.randint(len(x_0), (16,), generator=generator)
        noise = torch.randn(16, *x_0.shape[1:], generator=generator)
        t = torch.randint(scheduler.config.num_train_timesteps, (16,), generator=generator)
        x_t = scheduler.add_noise(x_0[index], noise, t)
        predicted = unet(x_t, t, encoder_hidden_states=hidden[index]).sample
        target = noise
        if scheduler.config.prediction_type == "v_prediction":
            target = scheduler.get_velocity(x_0[index], noise, t)
        optimizer.zero_grad()
        (predicted - target).square().mean().backward()
        optimizer.step()
        schedule.step()
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=get_peft_model_state_dict(unet))
    return folder / "pytorch_lora_weights.safetensors"
