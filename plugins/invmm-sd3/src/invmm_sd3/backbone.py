"""Stable Diffusion 3 and 3.5: a rectified flow on latents, conditioned on two CLIPs and a T5.

The first CLIP's tokens are searched along with the noise (``soft``), and the other encoders read the image's caption.
Esser et al. 2024, "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis"; Ma et al. 2025, section 4.
"""

from collections.abc import Mapping
from functools import cached_property

import torch
from diffusers import StableDiffusion3Pipeline
from torch import Tensor

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

PAPER_SIZE = 512
"""Pixels a side of the images that the paper audits."""


class SD3:
    """A StableDiffusion3Pipeline as a backbone.

    Args:
        model: A folder, a Hub id, or a loaded pipeline; one without T5 is taken, as the pipeline takes it.
        revision: Branch, tag or commit on the Hub.
        device: Where to compute; a loaded pipeline stays where it is.
        dtype: Precision of network and text encoders; x_0 and the autoencoder are float32 in any case.
        prompt_mode: ``soft`` searches the tokens of the first CLIP and gives the other encoders the image's caption, or
            nothing where there is none, as the paper does; ``caption`` gives the caption to all, and ``empty`` nothing.
        checkpointing: Recompute activations for the gradient: less memory, about a third more time for steps.
        max_sequence_length: Places of T5's prompt, as the pipeline has them; the paper takes 77.
        image_size: Pixels a side of the images; None takes the paper's 512, or what the model has where that is less.

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
        max_sequence_length: int = 256,
        image_size: int | None = None,
    ) -> None:
        self._prompt_mode = check_prompt_mode(prompt_mode)
        self._length = max_sequence_length
        pipeline = load_pipeline(model, revision=revision, device=device, dtype=dtype)
        if not isinstance(pipeline, StableDiffusion3Pipeline):
            raise InvMMError(f"The backbone sd3 takes a StableDiffusion3Pipeline, not a {type(pipeline).__name__}.")
        if pipeline.text_encoder is None or pipeline.text_encoder_2 is None:
            raise InvMMError("The backbone sd3 needs both CLIP text encoders; only the T5 may be left out.")
        self._pipeline = pipeline
        self._transformer = frozen(pipeline.transformer)
        if checkpointing:
            self._transformer.enable_gradient_checkpointing()
        self._autoencoder = Autoencoder(pipeline.vae, ignored=("latents_mean", "latents_std"))
        self.device: torch.device = self._transformer.device
        self.settings: Mapping[str, str | int | float | None] = {
            "name": "sd3",
            "dtype": str(self._transformer.dtype),
            "prompt_mode": prompt_mode,
            "max_sequence_length": max_sequence_length,
        }
        config = self._transformer.config
        if image_size is None:
            image_size = min(PAPER_SIZE, config.sample_size * self._autoencoder.factor)
        height, width = self._autoencoder.sides(image_size, config.patch_size)
        self.image_shape: tuple[int, int, int] = (self._autoencoder.channels, height, width)
        tokens = height * width // (self._autoencoder.factor * config.patch_size) ** 2
        self.schedule = rectified_flow(pipeline.scheduler, self.device, tokens=tokens)
        self._times: int = pipeline.scheduler.config.num_train_timesteps
        self.recipe: Recipe = STABLE_DIFFUSION_3
        self.clip: float | None = None

    def encode(self, images: Tensor) -> Tensor:
        """The shifted and scaled latents."""
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
                found = encoder(weights, output_hidden_states=True)
                hidden, pooled = found.hidden_states[-2], found.text_embeds
                context = {name: tensor.clone() for name, tensor in repeat(given, len(weights)).items()}
                context[HIDDEN][:, : hidden.shape[1], : hidden.shape[2]] = hidden
                context[POOLED][:, : pooled.shape[1]] = pooled
                return context

            return SoftPrompt((encoder.length, encoder.vocabulary), encode, null, encoder.read, device=self.device)
        text = fixed_text(self._prompt_mode, caption)
        return FixedPrompt(self._given(text, text), null, text)

    @cached_property
    def _soft(self) -> SoftTextEncoder:
        return SoftTextEncoder(self._pipeline.text_encoder, self._pipeline.tokenizer)

    @torch.no_grad()
    def _given(self, first: str, others: str) -> Context:
        """What the first CLIP makes of one text and the other encoders of another, joined as the pipeline does."""
        hidden, _, pooled, _ = self._pipeline.encode_prompt(
            first, others, others, self.device, 1, False, max_sequence_length=self._length
        )
        return {HIDDEN: hidden, POOLED: pooled}

    def predict_x0(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        """The network estimates the flow ``n - x_0``, and ``x_0 = x_t - t * (n - x_0)``."""
        conditioning = {name: tensor.to(self._transformer.dtype) for name, tensor in context.items()}
        output = self._transformer(x_t.to(self._transformer.dtype), timestep=t * self._times, **conditioning)
        flow: Tensor = output.sample.float()
        return x_t - broadcast(t, x_t) * flow
