"""The autoencoder of a latent diffusion model: between images in [0, 1] and the x_0 that the model noises.

    x_0 = (z - shift) * scale,   z the mode of the posterior, or what a vector-quantised encoder gives before quantising

with ``scaling_factor`` and ``shift_factor`` of the autoencoder's config (Rombach et al. 2022, "High-Resolution Image
Synthesis with Latent Diffusion Models", section 3.1). Everything is computed in float32, whatever the network's
precision: several published autoencoders overflow in float16.
"""

from typing import Any

import torch
from diffusers import VQModel
from torch import Tensor

from invmm_eval.models.pipelines import frozen


class Autoencoder:
    """An AutoencoderKL or VQModel of diffusers, as a frozen view that leaves the original unchanged.

    Args:
        model: The autoencoder.
        quantize: Whether a VQModel quantises x_0 before decoding, as its pipeline does.
        small: An AutoencoderTiny that decodes instead.

    Attributes:
        factor: Ratio of the sides of images and of x_0.
        channels: Channels of images.
    """

    def __init__(self, model: Any, *, quantize: bool = True, small: Any = None) -> None:
        self._model = frozen(model).float()
        self._small = frozen(small).float().to(model.device) if small is not None else None
        config = model.config
        self.factor: int = 2 ** (len(config.block_out_channels) - 1)
        self.channels: int = config.out_channels
        self._scale: float = config.get("scaling_factor") or 1.0
        self._shift: float = config.get("shift_factor") or 0.0
        self._options = {"force_not_quantize": not quantize} if isinstance(model, VQModel) else {}
        if not isinstance(model, VQModel):
            self._model.enable_slicing()

    def encode(self, images: Tensor) -> Tensor:
        """x_0 ``(n, c, h / factor, w / factor)`` of ``images`` ``(n, C, h, w)`` in [0, 1]."""
        found = self._model.encode(images * 2 - 1)
        z: Tensor = found.latents if isinstance(self._model, VQModel) else found.latent_dist.mode()
        return (z - self._shift) * self._scale

    def decode(self, x_0: Tensor) -> Tensor:
        """Images ``(n, C, h, w)``, clipped to [0, 1], of ``x_0``."""
        if self._small is not None:
            images = self._small.decode(x_0 / self._small.config.scaling_factor).sample
        else:
            images = self._model.decode(x_0 / self._scale + self._shift, **self._options).sample
        return torch.clamp(images / 2 + 0.5, 0, 1)
