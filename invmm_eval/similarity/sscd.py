"""SSCD, a network that embeds the copies of an image close together: the similarity of the paper.

Pizzi et al. 2022, "A Self-Supervised Descriptor for Image Copy Detection", arXiv 2202.10261. With the network ``f``,

    similarity(a, b) = <f(a), f(b)> / (‖f(a)‖ ‖f(b)‖)

Ma et al. 2025 (arXiv 2405.05846) use Meta's model ``sscd_disc_large`` and count images from 0.5 on as copies.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from invmm_eval.errors import InvMMError, on_disk

WEIGHTS_VARIABLE = "INVMM_SSCD_WEIGHTS"
"""The environment variable that names the file of weights where the option does not."""

_LARGEST_SIDE = 320
_BATCH = 32
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


class SSCD:
    """Cosine of SSCD's embeddings, in [-1, 1].

    On small pictures ``side`` decides how well copies are separated. Of 544 different OpenMoji pictures at 32x32, with
    an 8-bit ``sscd_disc_mixup``, 28 % of the pairs reach 0.5 at side 32, 6 % at 64 and 49 % at 288, while copies with
    Gaussian noise of 0.05 do in 100, 95 and 60 % of cases: for such pictures side 64 is better than either.

    Args:
        device: Device of the computation. An ONNX graph runs on the CPU if onnxruntime is installed without CUDA.
        weights: The network's file; None takes the one that ``INVMM_SSCD_WEIGHTS`` names. A name that ends in
            ``.onnx`` is a graph for onnxruntime, which is data. Any other is TorchScript, which is executable code:
            name only a file whose source you trust.
        side: Images are resized to ``side`` by ``side`` pixels. None is the side that an ONNX graph is fixed to, or
            else the paper's rule: the smaller side of the images, at most 320.
        sha256: The digest, in hexadecimal, that the file must have.

    Raises:
        InvMMError: The weights are missing, do not have the digest, or are not an SSCD network.
    """

    name = "sscd"
    threshold = 0.5

    def __init__(
        self,
        *,
        device: torch.device,
        weights: str | Path | None = None,
        side: int | None = None,
        sha256: str | None = None,
    ) -> None:
        if side is not None and (not isinstance(side, int) or side < 1):
            raise InvMMError(f"SSCD's side is {side!r}; it must be a whole number of pixels, at least 1.")
        path = _weights_path(weights)
        with on_disk(f"SSCD's weights {path} cannot be read"):
            content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        if sha256 is not None and sha256.lower() != digest:
            raise InvMMError(f"{path} has the SHA-256 {digest}, not {sha256}: use the file with the requested digest.")
        self._device = device
        self._network = (_graph if path.suffix.lower() == ".onnx" else _torchscript)(content, path, device)
        if side is not None and self._network.side not in (None, side):
            raise InvMMError(f"{path} takes only images of side {self._network.side}; leave out side={side}.")
        self._side = side or self._network.side
        self.settings: Mapping[str, str | int | float | None] = {"sha256": digest, "side": self._side}
        self._check_network(path)

    def embed(self, images: Tensor) -> Tensor:
        """Embeddings ``(n, d)`` of length 1; no gradient flows back."""
        side = self._side or min(*images.shape[-2:], _LARGEST_SIDE)
        features = []
        with torch.no_grad():
            for batch in torch.split(images, self._network.batch):
                coloured = batch.to(self._device).expand(-1, 3, -1, -1)
                resized = interpolate(coloured, (side, side), mode="bilinear", antialias=True)
                features.append(self._network.run(resized))
        return normalize(torch.cat(features))

    def compare(self, a: Tensor, b: Tensor) -> Tensor:
        """Cosines ``(n, m)``."""
        return a @ b.T

    def _check_network(self, path: Path) -> None:
        try:
            shape = tuple(self.embed(torch.zeros(1, 3, 64, 64)).shape)
        except Exception as error:
            raise InvMMError(f"{path} is not SSCD, or exported otherwise: it cannot embed one image.") from error
        if len(shape) != 2 or shape[0] != 1:
            raise InvMMError(f"{path} is not SSCD: its embedding of one image has the shape {shape}, not (1, d).")


@dataclass(frozen=True)
class _Network:
    """The network in a file.

    Attributes:
        run: Float32 features ``(n, d)`` of images ``(n, 3, side, side)`` in [0, 1], n at most ``batch``.
        side: The only input side it accepts; None if it accepts any.
        batch: Maximum number of images per call.
    """

    run: Callable[[Tensor], Tensor]
    side: int | None = None
    batch: int = _BATCH


def _weights_path(weights: str | Path | None) -> Path:
    named = weights or os.environ.get(WEIGHTS_VARIABLE)
    if not named:
        raise InvMMError(
            f"SSCD needs weights: set the option weights or {WEIGHTS_VARIABLE} to their file, best an ONNX export, "
            "else sscd_disc_large.torchscript.pt from Meta's github.com/facebookresearch/sscd-copy-detection."
        )
    return Path(named).expanduser()


def _torchscript(content: bytes, path: Path, device: torch.device) -> _Network:
    try:
        module = torch.jit.load(BytesIO(content), map_location=device).eval()  # type: ignore[no-untyped-call]
    except Exception as error:
        raise InvMMError(
            f"{path} is damaged or not TorchScript: take Meta's file that ends in .torchscript.pt, or an ONNX export."
        ) from error
    return _Network(lambda images: module(_standardised(images)).float())


def _graph(content: bytes, path: Path, device: torch.device) -> _Network:
    try:
        import onnxruntime
    except ImportError as error:
        raise InvMMError("SSCD as an ONNX graph needs onnxruntime: pip install 'invmm-eval[sscd]'.") from error
    providers: list[Any] = ["CPUExecutionProvider"]
    if device.type == "cuda" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": device.index or 0}))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Not a folder: weights in a second file, which the digest does not cover, are not found.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path))
    try:
        session = onnxruntime.InferenceSession(content, options, providers=providers)
    except Exception as error:
        raise InvMMError(f"{path} is damaged or not an ONNX graph with its weights in the same file.") from error
    inputs = session.get_inputs()
    match [(tensor.type, tensor.shape) for tensor in inputs]:
        case [("tensor(float)", [batch, 3, height, width])]:
            prepare = _standardised
        case [("tensor(uint8)", [batch, height, width, 3])]:
            prepare = _to_bytes
        case found:
            raise InvMMError(
                f"{path} takes {found}; an SSCD graph takes one input, tensor(float) [n, 3, side, side] or "
                "tensor(uint8) [n, side, side, 3]."
            )
    sides = {side for side in (height, width) if isinstance(side, int)}
    if len(sides) > 1:
        raise InvMMError(f"{path} takes only images of {height}x{width}; export SSCD for square ones or for any size.")
    fixed_batch = batch if isinstance(batch, int) else None

    def run(images: Tensor) -> Tensor:
        padding = images[-1:].expand((fixed_batch or len(images)) - len(images), -1, -1, -1)
        pixels = prepare(torch.cat([images, padding])).cpu().numpy()
        features = torch.from_numpy(session.run(None, {inputs[0].name: pixels})[0])
        return features[: len(images)].to(device, torch.float32)

    return _Network(run, side=next(iter(sides), None), batch=fixed_batch or _BATCH)


def _standardised(images: Tensor) -> Tensor:
    """By the mean and standard deviation of ImageNet's channels, as SSCD was trained."""
    mean, std = (images.new_tensor(values).view(3, 1, 1) for values in (_MEAN, _STD))
    return (images - mean) / std


def _to_bytes(images: Tensor) -> Tensor:
    """uint8 ``(n, side, side, 3)``, for graphs that standardise their input."""
    return (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
