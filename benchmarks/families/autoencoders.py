"""Autoencoders of latent models, trained on pictures that the models do not see."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from diffusers import AutoencoderDC, AutoencoderKL, AutoencoderKLFlux2, Flux2KleinPipeline, VQModel
from sklearn.cluster import KMeans
from torch import Tensor
from torch.nn.functional import mse_loss

from benchmarks.common.training import fit
from benchmarks.families.data import Data, stacked

CHANNELS = 4
DEEP_CHANNELS = 16


def augmented(images: Tensor) -> Tensor:
    """Rotated, mirrored and with colours exchanged, so that an autoencoder learns more than these pictures."""
    images = images[:, torch.randperm(3)].rot90(int(torch.randint(4, ())), (2, 3))
    return images.flip(3) if torch.rand(()) < 0.5 else images


def _coder(side: int) -> dict[str, Any]:
    return {
        "sample_size": side,
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "latent_channels": CHANNELS,
    }


def _fitted(model: Any, images: Tensor, steps: int, reconstruction: Callable[[Tensor], tuple[Tensor, Tensor]]) -> None:
    """Train a model; ``reconstruction`` gives its images of images, and what is added to the loss."""

    def loss() -> Tensor:
        x = augmented(images[torch.randint(len(images), (32,))])
        made, added = reconstruction(x)
        return mse_loss(made, x) + added

    weights = list(model.parameters())
    fit(weights, loss, steps=steps, rate=2e-3, name=type(model).__name__).copy_to(weights)
    model.eval()


def _of_posterior(model: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    posterior = model.encode(x).latent_dist
    return model.decode(posterior.sample()).sample, 1e-6 * posterior.kl().mean()


def _images(known: Data, device: torch.device) -> Tensor:
    return stacked([*known.others, *known.single]).to(device)


def train_kl(known: Data, steps: int, device: torch.device) -> AutoencoderKL:
    """An AutoencoderKL whose scaled latents have unit variance."""
    images = _images(known, device)
    model = AutoencoderKL(**_coder(images.shape[-1]), shift_factor=0.0).to(device)
    _fitted(model, images, steps, lambda x: _of_posterior(model, x))
    with torch.no_grad():
        model.register_to_config(scaling_factor=1 / model.encode(images).latent_dist.mode().std().item())
    return model


def train_flux2(known: Data, steps: int, device: torch.device) -> AutoencoderKLFlux2:
    """The autoencoder of FLUX.2, with the means and variances of its patches."""
    images = _images(known, device)
    model = AutoencoderKLFlux2(**_coder(images.shape[-1])).to(device)
    _fitted(model, images, steps, lambda x: _of_posterior(model, x))
    with torch.no_grad():
        patches = Flux2KleinPipeline._patchify_latents(model.encode(images).latent_dist.mode())
        model.bn.running_mean.copy_(patches.mean(dim=(0, 2, 3)))
        model.bn.running_var.copy_(patches.var(dim=(0, 2, 3)))
    return model


def train_dc(known: Data, steps: int, device: torch.device) -> AutoencoderDC:
    """The deep-compression autoencoder of Sana: images are four times as large as latents."""
    images = _images(known, device)
    blocks, layers, scales = ("ResBlock", "ResBlock", "EfficientViTBlock"), (1, 1, 1), ((), (), (5,))
    model = AutoencoderDC(
        in_channels=3,
        latent_channels=DEEP_CHANNELS,
        attention_head_dim=16,
        encoder_block_types=blocks,
        decoder_block_types=blocks,
        encoder_block_out_channels=(32, 64, 128),
        decoder_block_out_channels=(32, 64, 128),
        encoder_layers_per_block=layers,
        decoder_layers_per_block=layers,
        encoder_qkv_multiscales=scales,
        decoder_qkv_multiscales=scales,
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
    ).to(device)
    _fitted(model, images, steps, lambda x: (model.decode(model.encode(x).latent).sample, x.new_zeros(())))
    with torch.no_grad():
        model.register_to_config(scaling_factor=1 / model.encode(images).latent.std().item())
    return model


def train_vq(known: Data, steps: int, device: torch.device) -> VQModel:
    """A VQModel: first without quantising, then with a code book that starts at the clusters of its latents."""
    images = _images(known, device)
    model = VQModel(**_coder(images.shape[-1]), num_vq_embeddings=1024, vq_embed_dim=CHANNELS).to(device)

    def loss(plain: bool) -> Tensor:
        x = augmented(images[torch.randint(len(images), (32,))])
        decoded = model.decode(model.encode(x).latents, force_not_quantize=plain)
        fit_loss: Tensor = mse_loss(decoded.sample, x) + 0.25 * decoded.commit_loss.mean()
        return fit_loss

    # Quantising needs more steps.
    half, weights = round(0.8 * steps), list(model.parameters())
    fit(weights, lambda: loss(True), steps=half, rate=2e-3, name="VQModel before quantising")
    with torch.no_grad():
        latents = model.encode(images).latents.movedim(1, -1).flatten(0, -2).cpu()
        clusters = KMeans(1024, n_init=1, max_iter=10, random_state=0).fit(latents[:: len(latents) // 16384 or 1])
        model.quantize.embedding.weight.copy_(torch.from_numpy(clusters.cluster_centers_))
    fit(weights, lambda: loss(False), steps=half, rate=1e-3, name="VQModel quantising").copy_to(weights)
    with torch.no_grad():
        model.register_to_config(scaling_factor=1 / model.eval().encode(images).latents.std().item())
    return model


AUTOENCODERS: Mapping[str, tuple[Any, Callable[[Data, int, torch.device], Any]]] = {
    "kl": (AutoencoderKL, train_kl),
    "vq": (VQModel, train_vq),
    "dc": (AutoencoderDC, train_dc),
    "flux2": (AutoencoderKLFlux2, train_flux2),
}
"""Their classes, and how they are trained."""
