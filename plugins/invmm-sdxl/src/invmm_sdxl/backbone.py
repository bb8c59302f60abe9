"""Stable Diffusion XL: StableDiffusionXLPipeline of diffusers, with both of its text encoders.

The network attends to the last but one hidden states of two CLIPs, concatenated, and is conditioned on the pooled
output of the second and the size of the image. Podell et al. 2023, "SDXL: Improving Latent Diffusion Models for
High-Resolution Image Synthesis".
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor

from invmm_eval.plugin import (
    STABLE_DIFFUSION,
    Autoencoder,
    Condition,
    Context,
    FixedPrompt,
    InvMMError,
    Recipe,
    SoftPrompt,
    SoftTextEncoder,
    broadcast,
    check_prompt_mode,
    discrete,
    fixed_text,
    frozen,
    image_sides,
    load_pipeline,
)

HIDDEN, POOLED = "encoder_hidden_states", "text_embeds"


class StableDiffusionXL:
    """A Stable Diffusion XL pipeline as a backbone.

    Args:
        model: A folder, a Hub id, or a loaded pipeline.
        revision: Branch, tag or commit on the Hub.
        device: Where to compute; a loaded pipeline stays where it is.
        dtype: Precision of network and text encoders; x_0 and the autoencoder are float32 in any case.
        prompt_mode: ``soft`` searches the prompt, ``caption`` takes the image's caption, and ``empty`` none.
        checkpointing: Recompute activations for the gradient: less memory, about a third more time for steps.

    Raises:
        InvMMError: The pipeline cannot be loaded, is of another kind, or there is no such prompt mode.
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
    ) -> None:
        self._prompt_mode = check_prompt_mode(prompt_mode)
        pipeline = load_pipeline(model, revision=revision, device=device, dtype=dtype)
        if pipeline.text_encoder is None or pipeline.text_encoder_2 is None:
            raise InvMMError("The backbone sdxl takes base models with both text encoders, which a refiner has not.")
        unet = pipeline.unet.config
        if (
            unet.in_channels != pipeline.vae.config.latent_channels
            or unet.addition_embed_type != "text_time"
            or unet.time_cond_proj_dim
        ):
            raise InvMMError(
                "The backbone sdxl takes plain text-to-image models: this network has other inputs than latents, a "
                "time, a prompt and the image's size."
            )
        self._pipeline = pipeline
        self._unet = frozen(pipeline.unet)
        if checkpointing:
            self._unet.enable_gradient_checkpointing()
        self._autoencoder = Autoencoder(pipeline.vae, ignored=("shift_factor",))
        self.device: torch.device = self._unet.device
        self.settings: Mapping[str, str | int | float | None] = {
            "name": "sdxl",
            "dtype": str(self._unet.dtype),
            "prompt_mode": prompt_mode,
        }
        path = discrete(pipeline.scheduler, self.device)
        self.schedule, self._x0_from, self.clip = path.schedule, path.x0_from, path.clip
        self.recipe: Recipe = replace(STABLE_DIFFUSION, name="sdxl")
        height, width = image_sides(self._unet, self._autoencoder.factor)
        self.image_shape: tuple[int, int, int] = (self._autoencoder.channels, height, width)
        # Original size, crop and target size, the pipeline's defaults.
        self._time_ids = torch.tensor([[height, width, 0, 0, height, width]]).to(self.device, self._unet.dtype)

    def encode(self, images: Tensor) -> Tensor:
        """The scaled latents."""
        return self._autoencoder.encode(images)

    def decode(self, x_0: Tensor) -> Tensor:
        """Images in [0, 1]."""
        return self._autoencoder.decode(x_0)

    def condition(self, caption: str | None = None) -> Condition:
        """The prompt, as the prompt mode has it.

        Raises:
            InvMMError: The prompt mode is ``caption`` and there is none.
        """
        if self._prompt_mode == "soft":
            (encoder, _), (_, null) = self._soft, self._fixed("")
            shape = (encoder.length, encoder.vocabulary)
            return SoftPrompt(shape, self._mixed, null, encoder.read, device=self.device)
        text = fixed_text(self._prompt_mode, caption)
        return FixedPrompt(*self._fixed(text), text)

    @cached_property
    def _soft(self) -> tuple[SoftTextEncoder, SoftTextEncoder]:
        """Both encoders, whose vocabulary is the same."""
        pipeline = self._pipeline
        return (
            SoftTextEncoder(pipeline.text_encoder, pipeline.tokenizer),
            SoftTextEncoder(pipeline.text_encoder_2, pipeline.tokenizer_2),
        )

    def _mixed(self, weights: Tensor) -> Context:
        first, second = (encoder(weights, output_hidden_states=True) for encoder in self._soft)
        hidden = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
        return {HIDDEN: hidden, POOLED: second.text_embeds}

    @torch.no_grad()
    def _fixed(self, text: str) -> tuple[Context, Context]:
        """The text's context, and the null context, which is zero where the pipeline has it so."""
        hidden, null, pooled, null_pooled = self._pipeline.encode_prompt(text, device=self.device)
        return {HIDDEN: hidden, POOLED: pooled}, {HIDDEN: null, POOLED: null_pooled}

    def predict_x0(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        """The network's estimate, given the prompt's encodings and the image's size."""
        dtype = self._unet.dtype
        added = {"text_embeds": context[POOLED].to(dtype), "time_ids": self._time_ids.expand(len(x_t), -1)}
        hidden = context[HIDDEN].to(dtype)
        output = self._unet(x_t.to(dtype), t, encoder_hidden_states=hidden, added_cond_kwargs=added).sample.float()
        alpha_t, sigma_t = (broadcast(level, x_t) for level in self.schedule(t))
        return self._x0_from(output, x_t, alpha_t, sigma_t)
