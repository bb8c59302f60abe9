"""Autoencoders of latent models, trained on pictures that the models do not see."""

import tomllib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLFlux2, Flux2KleinPipeline, VQModel
from sklearn.cluster import KMeans
from torch import Tensor
from torch.nn.functional import mse_loss

from benchmarks.common.training import fit
from benchmarks.families.data import Data, stacked
from invmm_eval.testing import tiny
from tests.helpers.families import parts

BASES: Mapping[str, Callable[[], Any]] = {
    "kl": partial(parts.kl, 4),
    "vq": lambda: tiny.tiny_ldm().vqvae,
    "dc": parts.dc,
    "flux2": parts.flux2_kl,
}
"""The small ones of the tests, by kind."""
CHANGES: Mapping[str, Mapping[str, Any]] = tomllib.loads(Path(__file__).with_name("networks.toml").read_text("utf-8"))


def augmented(images: Tensor) -> Tensor:
    """Rotated, mirrored and with colours exchanged, so that an autoencoder learns more than these pictures."""
    images = images[:, torch.randperm(3)].rot90(int(torch.randint(4, ())), (2, 3))
    return images.flip(3) if torch.rand(()) < 0.5 else images


def encoded(model: Any, images: Tensor) -> Tensor:
    """What the encoder gives for images in [-1, 1], without noise."""
    made = model.encode(images)
    z: Tensor = made.latent_dist.mode() if "latent_dist" in made else made[0]
    return z


def latents(model: Any, images: Tensor) -> Tensor:
    """x_0 of the family of models for images in [-1, 1], not packed."""
    z = encoded(model, images)
    if not isinstance(model, AutoencoderKLFlux2):
        scaled: Tensor = z * model.config.scaling_factor
        return scaled
    mean, variance = (part.view(1, -1, 1, 1) for part in (model.bn.running_mean, model.bn.running_var))
    patches: Tensor = (Flux2KleinPipeline._patchify_latents(z) - mean) / (variance + model.config.batch_norm_eps).sqrt()
    return patches


def trained(kind: str, side: int, known: Data, steps: int, device: torch.device) -> Any:
    """An autoencoder of square images whose x_0 have unit variance."""
    images = stacked([*known.others, *known.single], side).to(device)
    small = BASES[kind]()
    model = type(small).from_config(small.config, **CHANGES[kind], sample_size=side).to(device)

    def loss(quantize: bool = True) -> Tensor:
        x = augmented(images[torch.randint(len(images), (32,))])
        made = model.encode(x)
        if "latent_dist" in made:
            decoded, added = model.decode(made.latent_dist.sample()), 1e-6 * made.latent_dist.kl().mean()
        elif isinstance(model, VQModel):
            decoded = model.decode(made.latents, force_not_quantize=not quantize)
            added = 0.25 * decoded.commit_loss.mean()
        else:
            decoded, added = model.decode(made.latent), 0
        total: Tensor = mse_loss(decoded.sample, x) + added
        return total

    if isinstance(model, VQModel):  # first without quantising, then with a code book that starts at clusters
        half = round(0.8 * steps)
        fit([model], lambda: loss(quantize=False), steps=half, rate=2e-3, name="VQModel before quantising")
        with torch.no_grad():
            z = encoded(model, images).movedim(1, -1).flatten(0, -2).cpu()
            clusters = KMeans(1024, n_init=1, max_iter=10, random_state=0).fit(z[:: len(z) // 16384 or 1])
            model.quantize.embedding.weight.copy_(torch.from_numpy(clusters.cluster_centers_))
        fit([model], loss, steps=half, rate=1e-3, name="VQModel quantising")
    else:
        fit([model], loss, steps=steps, rate=2e-3, name=type(model).__name__)
    with torch.no_grad():
        z = encoded(model, images)
        if isinstance(model, AutoencoderKLFlux2):
            patches = Flux2KleinPipeline._patchify_latents(z)
            model.bn.running_mean.copy_(patches.mean(dim=(0, 2, 3)))
            model.bn.running_var.copy_(patches.var(dim=(0, 2, 3)))
        else:
            model.register_to_config(scaling_factor=1 / z.std().item())
    return model
