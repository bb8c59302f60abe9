"""Pixel models of diffusers, with or without classes: DDPMPipeline and DDIMPipeline with a UNet2DModel.

The model's data are images in [-1, 1]; its output (noise, velocity or sample) becomes x_0 as its scheduler defines.
Ho et al. 2020, "Denoising Diffusion Probabilistic Models".
"""

import copy
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from diffusers import UNet2DModel
from torch import Tensor

from invmm_eval.errors import InvMMError
from invmm_eval.models.condition import Condition, Context, Unconditional
from invmm_eval.models.few_steps import FewTimes, OwnSampler, by_itself, few_steps_of, whole_times
from invmm_eval.models.generic.offload import home
from invmm_eval.models.generic.offload import offload as move
from invmm_eval.models.labels import Labels
from invmm_eval.models.pipelines import discrete, frozen, image_sides, load_pipeline
from invmm_eval.models.schedule import Schedule
from invmm_eval.models.text import check_prompt_mode
from invmm_eval.recipe import DDPM as PAPER
from invmm_eval.recipe import Recipe


class DDPM:
    """A pixel pipeline as a backbone.

    Args:
        model: A folder, a Hub id, or a loaded pipeline.
        revision: Branch, tag or commit on the Hub.
        device: Device of the network; a loaded pipeline stays on its own.
        dtype: Precision of the network; x_0 is always float32. A loaded pipeline keeps its own.
        prompt_mode: For a network of classes: ``soft`` searches a mixture of classes, ``caption`` takes the image's
            caption as the number of its class, and ``empty`` is not possible. Other networks have no prompt.
        few_steps: Steps in which a model that is made for few samples, by its own scheduler; 0 takes it for one of
            many, and None what its pipeline says.
        offload: Keep weights in CPU memory: ``model`` moves the network to the device when it first computes, ``group``
            each layer while it computes.

    Raises:
        InvMMError: The pipeline cannot be loaded, or is not a supported pixel model.
    """

    def __init__(
        self,
        model: object,
        *,
        revision: str | None,
        device: torch.device,
        dtype: torch.dtype,
        prompt_mode: str = "soft",
        few_steps: int | None = None,
        offload: str | None = None,
    ) -> None:
        pipeline = load_pipeline(model, revision=revision, device=home(offload, device), dtype=dtype)
        if not isinstance(pipeline.unet, UNet2DModel):
            raise InvMMError("The backbone ddpm takes pixel models with a UNet2DModel.")
        self._unet = frozen(pipeline.unet)
        self.device: torch.device = device if offload else self._unet.device
        self._gradient = move([self._unet], offload, device)
        self.settings: Mapping[str, str | int | float | None] = {"name": "ddpm", "dtype": str(self._unet.dtype)}
        classes = self._unet.config.num_class_embeds
        check_prompt_mode(prompt_mode)
        self._labels = Labels(self._unet, self.device, classes, {}, prompt_mode) if classes else None
        if self._labels:
            self.settings = {**self.settings, "prompt_mode": prompt_mode}
        read = discrete(pipeline.scheduler, self.device)
        self.schedule: Schedule = read.schedule
        self._x_0, self.clip = read.x_0, read.clip
        self.recipe: Recipe = PAPER

        def ready(steps: int) -> Any:
            scheduler = copy.deepcopy(pipeline.scheduler)
            scheduler.set_timesteps(steps)
            return scheduler

        self.own_path = OwnSampler(pipeline, ready, whole_times, read.schedule, read.x_0, self.device)
        if few := few_steps_of(pipeline, few_steps):
            self.settings = {**self.settings, "few_steps": few}
            self.recipe = by_itself(PAPER, few, PAPER.guidance)
            self.schedule = FewTimes(read.schedule, [step.t for step in self.own_path(few).steps])
        if self._unet.class_embedding is not None and not self._unet.config.num_class_embeds:
            raise InvMMError("The network takes classes of a kind that is not supported (class_embed_type).")
        self.image_shape: tuple[int, int, int] = (self._unet.config.in_channels, *image_sides(self._unet))

    def encode(self, images: Tensor) -> Tensor:
        """From [0, 1] to [-1, 1]."""
        return images * 2 - 1

    def decode(self, x_0: Tensor) -> Tensor:
        """From [-1, 1] to [0, 1], clipped."""
        return (x_0 / 2 + 0.5).clamp(0, 1)

    def condition(self, caption: str | None = None) -> Condition:
        """Nothing, or the class of the image.

        Raises:
            InvMMError: There is no such class, or the prompt mode is ``caption`` and there is no caption.
        """
        return self._labels.condition(caption) if self._labels else Unconditional()

    def predict_x0(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        """The network's estimate; a learned variance, if any, is ignored."""
        given = {"class_labels": t.new_zeros(len(x_t), dtype=torch.long)} if self._labels else {}
        with self._gradient(), self._labels.mixed(context) if self._labels else nullcontext():
            output = self._unet(x_t.to(self._unet.dtype), t, **given).sample.float()
        return self._x_0(output[:, : x_t.shape[1]], x_t, t)
