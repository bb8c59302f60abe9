"""Unconditional latent diffusion: LDMPipeline of diffusers, with a VQModel or an AutoencoderKL and a UNet2DModel.

Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models".
"""

from collections.abc import Mapping

import torch
from diffusers import UNet2DModel
from torch import Tensor

from invmm_eval.errors import InvMMError
from invmm_eval.models.autoencoder import Autoencoder
from invmm_eval.models.condition import Condition, Context, Unconditional
from invmm_eval.models.pipelines import discrete, frozen, image_sides, load_pipeline
from invmm_eval.models.schedule import broadcast
from invmm_eval.recipe import LDM as PAPER
from invmm_eval.recipe import Recipe


class Latent:
    """A latent diffusion pipeline without a prompt as a backbone.

    Args:
        model: A folder, a Hub id, or a loaded pipeline.
        revision: Branch, tag or commit on the Hub.
        device: Device of the network; a loaded pipeline stays on its own.
        dtype: Precision of the network; x_0 and the autoencoder are always float32.
        quantize: Whether a VQModel quantises x_0 before decoding, as the pipeline does.

    Raises:
        InvMMError: The pipeline cannot be loaded, or is not a supported unconditional latent model.
    """

    def __init__(
        self,
        model: object,
        *,
        revision: str | None,
        device: torch.device,
        dtype: torch.dtype,
        quantize: bool = True,
    ) -> None:
        pipeline = load_pipeline(model, revision=revision, device=device, dtype=dtype)
        if not isinstance(pipeline.unet, UNet2DModel) or pipeline.unet.class_embedding is not None:
            raise InvMMError("The backbone latent takes unconditional models: a UNet2DModel without classes.")
        self._unet = frozen(pipeline.unet)
        self._autoencoder = Autoencoder(
            pipeline.vqvae, quantize=quantize, ignored=("shift_factor", "latents_mean", "latents_std")
        )
        self.device: torch.device = self._unet.device
        self.settings: Mapping[str, str | int | float | None] = {
            "name": "latent",
            "dtype": str(self._unet.dtype),
            "quantize": quantize,
        }
        scheduler = discrete(pipeline.scheduler, self.device)
        self.schedule, self._x0_from, self.clip = scheduler.schedule, scheduler.x0_from, scheduler.clip
        self.recipe: Recipe = PAPER
        sides = image_sides(self._unet, self._autoencoder.factor)
        self.image_shape: tuple[int, int, int] = (self._autoencoder.channels, *sides)

    def encode(self, images: Tensor) -> Tensor:
        """The scaled latents."""
        return self._autoencoder.encode(images)

    def decode(self, x_0: Tensor) -> Tensor:
        """Images in [0, 1]."""
        return self._autoencoder.decode(x_0)

    def condition(self, caption: str | None = None) -> Condition:  # noqa: ARG002
        """The condition of an unconditional model."""
        return Unconditional()

    def predict_x0(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:  # noqa: ARG002
        """The network's estimate."""
        output = self._unet(x_t.to(self._unet.dtype), t).sample.float()
        alpha_t, sigma_t = (broadcast(level, x_t) for level in self.schedule(t))
        return self._x0_from(output, x_t, alpha_t, sigma_t)
