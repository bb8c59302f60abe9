"""PixArt-alpha and PixArt-sigma: transformers that predict noise, conditioned on a prompt by T5.

Chen et al. 2023, "PixArt-alpha: Fast Training of Diffusion Transformer for Photorealistic Text-to-Image Synthesis";
Chen et al. 2024, "PixArt-sigma: Weak-to-Strong Training of Diffusion Transformer for 4K Text-to-Image Generation".
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

HIDDEN, MASK = "encoder_hidden_states", "encoder_attention_mask"


class PixArt:
    """A PixArt pipeline as a backbone.

    Args:
        model: A folder, a Hub id, or a loaded pipeline.
        revision: Branch, tag or commit on the Hub.
        device: Where to compute; a loaded pipeline stays where it is.
        dtype: Precision of network and text encoder; x_0 and the autoencoder are float32 in any case.
        prompt_mode: ``soft`` searches the prompt, ``caption`` takes the image's caption, and ``empty`` none.
        checkpointing: Recompute activations for the gradient: less memory, about a third more time for steps.

    Raises:
        InvMMError: The pipeline cannot be loaded, or there is no such prompt mode.
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
        self._pipeline = load_pipeline(model, revision=revision, device=device, dtype=dtype)
        self._transformer = frozen(self._pipeline.transformer)
        if checkpointing:
            self._transformer.enable_gradient_checkpointing()
        self._autoencoder = Autoencoder(self._pipeline.vae, ignored=("shift_factor", "latents_mean", "latents_std"))
        self.device: torch.device = self._transformer.device
        self.settings: Mapping[str, str | int | float | None] = {
            "name": "pixart",
            "dtype": str(self._transformer.dtype),
            "prompt_mode": prompt_mode,
        }
        path = discrete(self._pipeline.scheduler, self.device)
        self.schedule, self._x0_from, self.clip = path.schedule, path.x0_from, path.clip
        self.recipe: Recipe = replace(STABLE_DIFFUSION, name="pixart")
        sides = image_sides(self._transformer, self._autoencoder.factor)
        self.image_shape: tuple[int, int, int] = (self._autoencoder.channels, *sides)

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
            encoder = self._soft
            shape = (encoder.length, encoder.vocabulary)
            return SoftPrompt(shape, self._mixed, self._null, encoder.read, device=self.device)
        text = fixed_text(self._prompt_mode, caption)
        return FixedPrompt(self._fixed(text), self._null, text)

    @cached_property
    def _null(self) -> Context:
        return self._fixed("")

    @cached_property
    def _soft(self) -> SoftTextEncoder:
        """T5 behind mixtures, for prompts as long as the pipeline's own."""
        places = self._null[HIDDEN].shape[1]
        return SoftTextEncoder(self._pipeline.text_encoder, self._pipeline.tokenizer, places=places)

    def _mixed(self, weights: Tensor) -> Context:
        hidden = self._soft(weights).last_hidden_state
        return {HIDDEN: hidden, MASK: torch.ones(hidden.shape[:2], device=hidden.device)}

    @torch.no_grad()
    def _fixed(self, text: str) -> Context:
        """The text's encoding, padded; the mask is 1 where there is text."""
        hidden, mask, *_ = self._pipeline.encode_prompt(text, False, device=self.device)
        return {HIDDEN: hidden, MASK: mask.float()}

    def predict_x0(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        """The network's estimate, given the prompt's encoding; a learned variance is ignored."""
        dtype = self._transformer.dtype
        output = self._transformer(
            x_t.to(dtype),
            encoder_hidden_states=context[HIDDEN].to(dtype),
            encoder_attention_mask=context[MASK],
            timestep=t,
            added_cond_kwargs=self._sizes(len(x_t)),
        ).sample.float()
        alpha_t, sigma_t = (broadcast(level, x_t) for level in self.schedule(t))
        return self._x0_from(output[:, : x_t.shape[1]], x_t, alpha_t, sigma_t)

    def _sizes(self, n: int) -> dict[str, Tensor | None]:
        """The image's size and aspect ratio, which are inputs of models with 1,024 pixels per side."""
        if not self._transformer.use_additional_conditions:
            return {"resolution": None, "aspect_ratio": None}
        resolution = torch.tensor(self.image_shape[1:], dtype=self._transformer.dtype, device=self.device)
        return {"resolution": resolution.expand(n, 2), "aspect_ratio": torch.ones_like(resolution[:1]).expand(n, 1)}
