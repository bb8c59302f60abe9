"""FLUX.1: a rectified flow on latents in patches of 2x2, conditioned on CLIP's pooled output and T5's tokens.

CLIP's tokens are searched along with the noise (``soft``), and T5 reads the image's caption: the paper has no Flux, and
this is what it does for Stable Diffusion 3. Ma et al. 2025, section 4.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property

import torch
from diffusers import FluxPipeline
from torch import Tensor
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from invmm_eval.plugin import (
    STABLE_DIFFUSION_3,
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
    fixed_text,
    frozen,
    load_pipeline,
    rectified_flow,
    repeat,
)

HIDDEN, POOLED = "encoder_hidden_states", "pooled_projections"


class Flux:
    """A FluxPipeline as a backbone.

    Args:
        model: A folder, a Hub id, or a loaded pipeline.
        revision: Branch, tag or commit on the Hub.
        device: Where to compute; a loaded pipeline stays where it is.
        dtype: Precision of network and text encoders; x_0 and the autoencoder are float32 in any case.
        prompt_mode: ``soft`` searches CLIP's tokens and gives T5 the image's caption, or nothing where there is none;
            ``caption`` gives the caption to both, and ``empty`` nothing.
        guidance_scale: Guidance input of a guidance-distilled model such as FLUX.1-dev, in steps and checks; other
            models have none.
        checkpointing: Recompute activations for the gradient: less memory, about a third more time for steps.
        max_sequence_length: Places of T5's prompt, as the pipeline has them.

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
        guidance_scale: float = 3.5,
        checkpointing: bool = False,
        max_sequence_length: int = 512,
    ) -> None:
        self._prompt_mode = check_prompt_mode(prompt_mode)
        self._length = max_sequence_length
        pipeline = load_pipeline(model, revision=revision, device=device, dtype=dtype)
        if not isinstance(pipeline, FluxPipeline):
            raise InvMMError(f"The backbone flux takes a FluxPipeline, not a {type(pipeline).__name__}.")
        if pipeline.text_encoder is None or pipeline.text_encoder_2 is None:
            raise InvMMError("The backbone flux needs both text encoders of the pipeline, CLIP and T5.")
        self._pipeline = pipeline
        self._transformer = frozen(pipeline.transformer)
        if checkpointing:
            self._transformer.enable_gradient_checkpointing()
        self._autoencoder = Autoencoder(pipeline.vae, ignored=("latents_mean", "latents_std"))
        self.device: torch.device = self._transformer.device
        self._guidance = guidance_scale if self._transformer.config.guidance_embeds else None
        self.settings: Mapping[str, str | int | float | None] = {
            "name": "flux",
            "dtype": str(self._transformer.dtype),
            "prompt_mode": prompt_mode,
            "max_sequence_length": max_sequence_length,
            "guidance_scale": self._guidance,
        }
        side: int = pipeline.vae.config.sample_size
        self.image_shape: tuple[int, int, int] = (self._autoencoder.channels, side, side)
        self.schedule = rectified_flow(
            pipeline.scheduler,
            self.device,
            tokens=(side // self._autoencoder.factor // 2) ** 2,
            unshifted=lambda steps: torch.linspace(1, 1 / steps, steps, dtype=torch.float64).tolist(),
        )
        self.recipe: Recipe = replace(STABLE_DIFFUSION_3, name="flux", guidance=(1.0,))
        self.clip: float | None = None

    def encode(self, images: Tensor) -> Tensor:
        """The shifted and scaled latents, not in patches."""
        return self._autoencoder.encode(images)

    def decode(self, x_0: Tensor) -> Tensor:
        """Images in [0, 1]."""
        return self._autoencoder.decode(x_0)

    def condition(self, caption: str | None = None) -> Condition:
        """The prompt, as the prompt mode has it.

        Raises:
            InvMMError: The prompt mode is ``caption`` and there is none.
        """
        null = self._given("", "")
        if self._prompt_mode == "soft":
            encoder, given = self._soft, self._given("", caption or "")

            def encode(weights: Tensor) -> Context:
                return {**repeat(given, len(weights)), POOLED: encoder(weights).pooler_output}

            return SoftPrompt((encoder.length, encoder.vocabulary), encode, null, encoder.read, device=self.device)
        text = fixed_text(self._prompt_mode, caption)
        return FixedPrompt(self._given(text, text), null, text)

    @cached_property
    def _soft(self) -> SoftTextEncoder:
        return SoftTextEncoder(self._pipeline.text_encoder, self._pipeline.tokenizer)

    @torch.no_grad()
    def _given(self, clip: str, t5: str) -> Context:
        """What CLIP makes of one text and T5 of another."""
        hidden, pooled, _ = self._pipeline.encode_prompt(clip, t5, self.device, max_sequence_length=self._length)
        return {HIDDEN: hidden, POOLED: pooled}

    def predict_x0(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        """The network estimates the flow ``n - x_0``, and ``x_0 = x_t - t * (n - x_0)``."""
        conditioning = {name: tensor.to(self._transformer.dtype) for name, tensor in context.items()}
        rows, columns = x_t.shape[2] // 2, x_t.shape[3] // 2
        flow: Tensor = self._transformer(
            pixel_unshuffle(x_t.to(self._transformer.dtype), 2).flatten(2).mT,
            timestep=t,
            guidance=None if self._guidance is None else torch.full_like(t, self._guidance),
            txt_ids=x_t.new_zeros(conditioning[HIDDEN].shape[1], 3),
            img_ids=torch.cartesian_prod(*(torch.arange(n, device=x_t.device).float() for n in (1, rows, columns))),
            **conditioning,
        ).sample.float()
        return x_t - broadcast(t, x_t) * pixel_shuffle(flow.mT.reshape(len(x_t), -1, rows, columns), 2)
