"""A LoRA, trained by the recipe of diffusers' train_text_to_image_lora.py, with ``--snr_gamma=5``."""

from pathlib import Path

import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline
from diffusers.training_utils import _collate_lora_metadata, compute_snr
from peft import LoraConfig, get_peft_model_state_dict
from torch import Generator, Tensor

TARGETS = ["to_k", "to_q", "to_v", "to_out.0", "conv1", "conv2", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"]
"""The attention's projections, as in the script, and the other layers of a small network."""
GAMMA = 5.0


def train_lora(
    model: Path, images: Tensor, captions: list[str], folder: Path, *, steps: int, rank: int = 32, rate: float = 1e-2
) -> Path:
    """Train a LoRA of a denoiser that predicts noise on images ``(n, 3, H, W)`` in [-1, 1], all in each step.

    Returns:
        Its file.
    """
    pipeline = StableDiffusionPipeline.from_pretrained(model, dtype=torch.float32)
    unet = pipeline.unet.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=TARGETS))
    weights = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=rate)
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
    generator = Generator().manual_seed(0)
    with torch.no_grad():
        x_0 = pipeline.vae.encode(images).latent_dist.mode() * pipeline.vae.config.scaling_factor
        hidden, _ = pipeline.encode_prompt(captions, torch.device("cpu"), 1, False)
    for _ in range(steps):
        noise = torch.randn(x_0.shape, generator=generator)
        t = torch.randint(scheduler.config.num_train_timesteps, (len(x_0),), generator=generator)
        predicted = unet(scheduler.add_noise(x_0, noise, t), t, encoder_hidden_states=hidden).sample
        snr = compute_snr(scheduler, t)
        loss = (predicted - noise).square().flatten(1).mean(1) * snr.clamp(max=GAMMA) / snr
        optimizer.zero_grad()
        loss.mean().backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        rates.step()
    # The script's convert_state_dict_to_diffusers would rename the attention's layers alone, and a loader reads a file
    # by the layout of its first name.
    layers = get_peft_model_state_dict(unet)
    pipeline.save_lora_weights(folder, unet_lora_layers=layers, **_collate_lora_metadata({"unet": unet}))
    return folder / "pytorch_lora_weights.safetensors"
