"""Stable Diffusion 1 and 2: StableDiffusionPipeline of diffusers, predicting noise or velocity.

The prompt is searched along with the noise (``soft``), or it is the image's own caption, or empty.
Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models"; Ma et al. 2025, section 4.
"""

from collections.abc import Mapping
from functools import cached_property

import torch
from diffusers import AutoencoderTiny
from torch import Tensor

from invmm_eval.errors import InvMMError
from invmm_eval.models.autoencoder import Autoencoder
from invmm_eval.models.condition import Condition, Context, FixedPrompt, SoftPrompt
from invmm_eval.models.identity import model_identity
from invmm_eval.models.pipelines import discrete, frozen, image_sides, load_pipeline
from invmm_eval.models.schedule import broadcast
from invmm_eval.models.text import SoftTextEncoder, check_prompt_mode, fixed_text
from invmm_eval.recipe import STABLE_DIFFUSION as PAPER
from invmm_eval.recipe import Recipe

HIDDEN = "encoder_hidden_states"


class StableDiffusion:
    """A text-guided latent diffusion pipeline as a backbone.

    Args:
        model: A folder, a Hub id, or a loaded pipeline.
        revision: Branch, tag or commit on the Hub.
        device: Device of the network; a loaded pipeline stays on its own.
        dtype: Precision of network and text encoder; x_0 and the autoencoder are always float32.
        prompt_mode: ``soft`` searches the prompt, as the paper does; ``caption`` uses the image's caption, and
            ``empty`` the empty prompt.
        checkpointing: Recompute activations for the gradient: less memory, about a third more time per step.
        tiny_autoencoder: Folder or Hub id of an AutoencoderTiny that decodes samples at checks, which is faster; its
            approximate decoding is then compared with the image.
        image_size: Pixels a side of the images; None takes those that the network was trained on.

    Raises:
        InvMMError: The pipeline cannot be loaded, is not supported, or the prompt mode is unknown.
    """

    def __init__(
        self,
        model: object,
        *,
        revision: str | None,
        device: torch.device,
        dtype: torch.dtype,
        prompt_mode: str = "soft",
        checkpointing: bool = False,
        tiny_autoencoder: str | None = None,
        image_size: int | None = None,
    ) -> None:
        self._prompt_mode = check_prompt_mode(prompt_mode)
        unused = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
        pipeline = load_pipeline(model, revision=revision, device=device, dtype=dtype, **unused)
        unet, vae = pipeline.unet.config, pipeline.vae.config
        parts = pipeline.unet.class_embedding, pipeline.unet.encoder_hid_proj
        others = (*parts, unet.class_embed_type, unet.time_cond_proj_dim, unet.addition_embed_type)
        if unet.in_channels != vae.latent_channels or any(other is not None for other in others):
            raise InvMMError(
                "The backbone stable-diffusion takes plain text-to-image models: this network has other inputs than "
                "latents, a time and a prompt."
            )
        small = AutoencoderTiny.from_pretrained(tiny_autoencoder, use_safetensors=True) if tiny_autoencoder else None
        self._pipeline = pipeline
        self._unet = frozen(pipeline.unet)
        if checkpointing:
            self._unet.enable_gradient_checkpointing()
        self._autoencoder = Autoencoder(
            pipeline.vae, small=small, ignored=("shift_factor", "latents_mean", "latents_std")
        )
        self.device: torch.device = self._unet.device
        self.settings: Mapping[str, str | int | float | None] = {
            "name": "stable-diffusion",
            "dtype": str(self._unet.dtype),
            "prompt_mode": prompt_mode,
            "tiny_autoencoder": tiny_autoencoder,
        }
        if tiny_autoencoder:
            self.settings = {**self.settings, "tiny_autoencoder_weights": model_identity(tiny_autoencoder)}
        scheduler = discrete(pipeline.scheduler, self.device)
        self.schedule, self._x0_from, self.clip = scheduler.schedule, scheduler.x0_from, scheduler.clip
        self.recipe: Recipe = PAPER
        sides = image_sides(self._unet, self._autoencoder.factor)
        self.image_shape: tuple[int, int, int] = (self._autoencoder.channels, *sides)
        if image_size is not None:
            self.image_shape = (self._autoencoder.channels, *self._autoencoder.sides(image_size))

    def encode(self, images: Tensor) -> Tensor:
        """The scaled latents."""
        return self._autoencoder.encode(images)

    def decode(self, x_0: Tensor) -> Tensor:
        """Images in [0, 1]."""
        return self._autoencoder.decode(x_0)

    def condition(self, caption: str | None = None) -> Condition:
        """The prompt, according to the prompt mode.

        Raises:
            InvMMError: The prompt mode is ``caption`` and there is no caption.
        """
        if self._prompt_mode == "soft":
            encoder = self._soft
            return SoftPrompt(
                (encoder.length, encoder.vocabulary),
                lambda weights: {HIDDEN: encoder(weights).last_hidden_state},
                self._fixed(""),
                encoder.read,
                device=self.device,
            )
        text = fixed_text(self._prompt_mode, caption)
        return FixedPrompt(self._fixed(text), self._fixed(""), text)

    @cached_property
    def _soft(self) -> SoftTextEncoder:
        return SoftTextEncoder(self._pipeline.text_encoder, self._pipeline.tokenizer)

    @torch.no_grad()
    def _fixed(self, text: str) -> Context:
        embeddings, _ = self._pipeline.encode_prompt(text, self.device, 1, False)
        return {HIDDEN: embeddings}

    def predict_x0(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        """The network's estimate, given the prompt's encoding."""
        hidden = context[HIDDEN].to(self._unet.dtype)
        output = self._unet(x_t.to(self._unet.dtype), t, encoder_hidden_states=hidden).sample.float()
        alpha_t, sigma_t = (broadcast(level, x_t) for level in self.schedule(t))
        return self._x0_from(output, x_t, alpha_t, sigma_t)
