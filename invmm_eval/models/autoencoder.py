"""The autoencoder of a latent diffusion model: between images in [0, 1] and the x_0 that the model noises.

    x_0 = (z - shift) * scale,   z the mode of the posterior, or what an encoder without one gives (before quantising)

with ``scaling_factor`` and ``shift_factor`` of the autoencoder's config (Rombach et al. 2022, "High-Resolution Image
Synthesis with Latent Diffusion Models", section 3.1); with ``latents_mean`` and ``latents_std`` the shift is the mean
and the scale is divided by the standard deviation of each channel.
Everything is computed in float32, whatever the network's precision: several published autoencoders overflow in float16.
"""

from typing import Any

import torch
from diffusers import AsymmetricAutoencoderKL, AutoencoderKL, AutoencoderTiny, VQModel
from torch import Tensor

from invmm_eval.errors import InvMMError
from invmm_eval.models.pipelines import frozen

SUPPORTED = (AutoencoderKL, AsymmetricAutoencoderKL, AutoencoderTiny, VQModel)
"""Those that encode and decode images without random numbers."""


class Autoencoder:
    """An autoencoder of diffusers, one of :data:`SUPPORTED`, as a frozen view that leaves the original unchanged.

    Args:
        model: The autoencoder.
        quantize: Whether a VQModel quantises x_0 before decoding, as its pipeline does.

    Attributes:
        factor: Ratio of the sides of images and of x_0.
        channels: Channels of images.

    Raises:
        InvMMError: The autoencoder is of another class.
    """

    def __init__(self, model: Any, *, quantize: bool = True) -> None:
        if not isinstance(model, SUPPORTED):
            raise InvMMError(
                f"The autoencoder {type(model).__name__} is not supported: x_0 needs an encoder and a decoder of "
                f"images without random numbers ({', '.join(kind.__name__ for kind in SUPPORTED)})."
            )
        self._model = frozen(model).float()
        config = model.config
        self.factor: int = 2 ** (len(config.block_out_channels) - 1)
        self.channels: int = config.out_channels
        used = {name: value for name, value in config.items() if value is not None}
        self._scale: float | Tensor = used.get("scaling_factor") or 1.0
        self._shift: float | Tensor = used.get("shift_factor") or 0.0
        if "latents_mean" in used and "latents_std" in used:
            mean, std = (torch.tensor(used[name], device=model.device) for name in ("latents_mean", "latents_std"))
            self._scale, self._shift = self._scale / std.view(-1, 1, 1), mean.view(-1, 1, 1)
        self._options = {"force_not_quantize": not quantize} if isinstance(model, VQModel) else {}
        if isinstance(model, AutoencoderKL | AutoencoderTiny):
            self._model.enable_slicing()

    def encode(self, images: Tensor) -> Tensor:
        """x_0 ``(n, c, h / factor, w / factor)`` of ``images`` ``(n, C, h, w)`` in [0, 1]."""
        found = self._model.encode(images * 2 - 1)
        z: Tensor = found.latents if "latents" in found else found.latent_dist.mode()
        return (z - self._shift) * self._scale

    def decode(self, x_0: Tensor) -> Tensor:
        """Images ``(n, C, h, w)``, clipped to [0, 1], of ``x_0``."""
        images = self._model.decode(x_0 / self._scale + self._shift, **self._options).sample
        return torch.clamp(images / 2 + 0.5, 0, 1)
