"""Features of DINOv2 or CLIP, which put images near each other that show the same things.

With the network ``f``, its image resized, cropped and normalised as its image processor says,

    similarity(a, b) = <f(a), f(b)> / (‖f(a)‖ ‖f(b)‖)

Oquab et al. 2024, "DINOv2: Learning Robust Visual Features without Supervision"; Radford et al. 2021, "Learning
Transferable Visual Models From Natural Language Supervision".
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize
from transformers import AutoImageProcessor, AutoModel, CLIPModel, Dinov2Model

from invmm_eval.plugin import InvMMError

_BATCH = 32
_FEATURES: dict[type, Callable[..., Any]] = {CLIPModel: CLIPModel.get_image_features, Dinov2Model: Dinov2Model.__call__}
"""What gives the features of images, as ``pooler_output``."""
_RESAMPLING = {2: "bilinear", 3: "bicubic"}
"""Pillow's numbers."""
_STEPS = ("do_resize", "do_rescale", "do_normalize")
_PROCESSED = ("size", "do_center_crop", "crop_size", "resample", "image_mean", "image_std")
"""What an image processor says about images."""


class DINO:
    """Cosine of features of DINOv2 (its class token) or CLIP (its projected image embedding), in [-1, 1].

    These features describe what an image shows, not whether it is a copy: two photographs of one place may be nearer
    than a copy and its original. No threshold for copies is published, so there is no default: measure it on
    images that are known to be new, for each model.

    Args:
        device: Where to compute, in float32.
        threshold: From this cosine on, images count as copies.
        model: A folder or a Hub id, with weights in safetensors.
        revision: Branch, tag or commit on the Hub.

    Raises:
        InvMMError: There is no threshold, or the model cannot be loaded or is of another kind.
    """

    name = "dino"

    def __init__(
        self,
        *,
        device: torch.device,
        threshold: float | None = None,
        model: str = "facebook/dinov2-base",
        revision: str | None = None,
    ) -> None:
        if threshold is None:
            raise InvMMError(
                "The similarity dino has no published threshold: give it one, threshold=..., that images known to be "
                "new do not reach."
            )
        self.threshold = float(threshold)
        self._network, processor = _load(model, revision)
        self._network.to(device)
        self._device = device
        self._size, self._crop = processor.size, processor.crop_size if processor.do_center_crop else None
        self._mode = _RESAMPLING[processor.resample]
        self._mean, self._std = (
            torch.tensor(values, device=device)[:, None, None] for values in (processor.image_mean, processor.image_std)
        )
        self.settings: Mapping[str, str | int | float | None] = {
            "model": str(model),
            "revision": revision,
            "sha256": _digest(self._network.state_dict()),
            "processor": json.dumps({name: getattr(processor, name) for name in _PROCESSED}, default=dict),
        }

    def embed(self, images: Tensor) -> Tensor:
        """Features ``(n, d)`` of length 1; no gradient flows back."""
        with torch.no_grad():
            return torch.cat([self._features(batch.to(self._device)) for batch in torch.split(images, _BATCH)])

    def compare(self, a: Tensor, b: Tensor) -> Tensor:
        """Cosines ``(n, m)``."""
        return a @ b.T

    def _features(self, images: Tensor) -> Tensor:
        pixels = (self._resized(images.expand(-1, 3, -1, -1)) - self._mean) / self._std
        return normalize(_FEATURES[type(self._network)](self._network, pixel_values=pixels).pooler_output)

    def _resized(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        if shortest := self._size.shortest_edge:
            height, width = (shortest * side // min(height, width) for side in (height, width))
        else:
            height, width = self._size.height, self._size.width
        resized = interpolate(images, (height, width), mode=self._mode, antialias=True).clamp(0, 1)
        if self._crop is None:
            return resized
        top, left = (height - self._crop.height) // 2, (width - self._crop.width) // 2
        return resized[..., top : top + self._crop.height, left : left + self._crop.width]


def _load(model: str, revision: str | None) -> tuple[Any, Any]:
    """The network and its image processor.

    Raises:
        InvMMError: They cannot be loaded or are of another kind.
    """
    try:
        processor = AutoImageProcessor.from_pretrained(model, revision=revision, backend="pil")
        network, report = AutoModel.from_pretrained(
            model, revision=revision, dtype=torch.float32, use_safetensors=True, output_loading_info=True
        )
    except Exception as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise InvMMError(
            f"{model} cannot be loaded as an image model of transformers in safetensors: {reason}."
        ) from error
    if type(network) not in _FEATURES or processor.resample not in _RESAMPLING:
        raise InvMMError(f"The similarity dino takes a DINOv2 or CLIP model; {model} is a {type(network).__name__}.")
    if not all(getattr(processor, step) for step in _STEPS) or not math.isclose(processor.rescale_factor, 1 / 255):
        raise InvMMError(f"The image processor of {model} must resize, rescale by 1/255 and normalize images.")
    if report["missing_keys"]:
        raise InvMMError(f"{model} is incomplete: it lacks weights such as {min(report['missing_keys'])}.")
    return network.eval(), processor


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()
