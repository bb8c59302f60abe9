"""The interface of a diffusion model to the search."""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from invmm_eval.models.condition import Condition, Context
from invmm_eval.models.schedule import Schedule
from invmm_eval.recipe import Recipe


class Backbone(Protocol):
    """A diffusion model in the paper's notation. Sampling and guidance are not its concern.

    It may also have ``identity``, a text that differs where its weights do, such as their SHA-256. Without one, the
    identity is that of the file, folder, Hub model or pipeline that was loaded
    (:func:`invmm_eval.models.identity.model_identity`); what has none is never resumed.

    And it may have ``no_gradient``, a text that says why no gradient reaches its inputs. Then only searches that need
    none are possible.

    And it may have ``own_path(steps)``, which returns how the model's own scheduler samples
    (:class:`invmm_eval.models.few_steps.OwnPath`); without it recipes cannot take the sampler ``own``.
    """

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        ...

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels (1 or 3), height and width of the model's images."""
        ...

    @property
    def schedule(self) -> Schedule:
        """The model's times and noise levels, with tensors on :attr:`device`."""
        ...

    @property
    def recipe(self) -> Recipe:
        """The published settings for this family of models."""
        ...

    @property
    def settings(self) -> Mapping[str, str | int | float | None]:
        """Everything but the weights that determines its values (prompt mode, precision, ...), recorded in audits."""
        ...

    @property
    def clip(self) -> float | None:
        """The sampler clips estimates of x_0 to [-clip, clip]; None where the model's own scheduler does not clip."""
        ...

    def encode(self, images: Tensor) -> Tensor:
        """x_0, float32 ``(n, ...)``, of ``images`` ``(n, C, H, W)``, float32 in [0, 1]."""
        ...

    def decode(self, x_0: Tensor) -> Tensor:
        """Images ``(n, C, H, W)``, float32 in [0, 1], of ``x_0``."""
        ...

    def condition(self, caption: str | None = None) -> Condition:
        """A fresh condition for one image."""
        ...

    def predict_x0(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        """Estimate x_0, float32, from ``x_t`` at times ``t`` ``(n,)``, differentiable in ``x_t`` and ``context``.

        The estimate is not clipped and no guidance is applied.
        """
        ...
