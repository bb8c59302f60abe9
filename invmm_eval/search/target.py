"""One image to audit, and the random numbers that belong to it."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO

import torch
from PIL import Image
from torch import Generator, Tensor

from invmm_eval.errors import InvMMError


@dataclass(frozen=True, eq=False)
class Target:
    """One image to audit, at the model's size.

    Attributes:
        image: uint8 ``(C, H, W)`` on the CPU.
        name: What results call it.
        caption: Text that goes with it, for models that take one.

    Raises:
        InvMMError: The image is another kind of tensor.
    """

    image: Tensor
    name: str = ""
    caption: str | None = None

    def __post_init__(self) -> None:
        if self.image.dtype != torch.uint8 or self.image.ndim != 3 or self.image.device.type != "cpu":
            raise InvMMError(
                "A Target's image is a uint8 tensor (C, H, W) on the CPU; invmm_eval.audits.pictures.prepare makes it."
            )

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hex, of the text ``(C, H, W)`` and the pixels: the image's identity, whatever its name."""
        shape = str(tuple(self.image.shape)).encode()
        return hashlib.sha256(shape + self.image.numpy().tobytes()).hexdigest()

    @cached_property
    def bits(self) -> int | None:
        """Size of the image as a PNG that Pillow compresses as well as it can; None if PNG has no such channels.

        An upper limit of how much information the picture holds.
        """
        mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}.get(len(self.image))
        if mode is None:
            return None
        _, height, width = self.image.shape
        file = BytesIO()
        pixels = self.image.permute(1, 2, 0).contiguous().numpy().tobytes()
        Image.frombytes(mode, (width, height), pixels).save(file, "PNG", optimize=True)
        return 8 * len(file.getvalue())


def generator(seed: int, digest: str, purpose: str, device: torch.device | str = "cpu") -> Generator:
    """The random numbers for one purpose and one image, independent of everything else that is drawn.

    Args:
        seed: The seed of the run.
        digest: The image's :attr:`Target.digest`.
        purpose: Any text; each text has random numbers of its own.
        device: The device of the generator.
    """
    mixed = hashlib.sha256(f"{seed} {digest} {purpose}".encode()).digest()
    return Generator(device).manual_seed(int.from_bytes(mixed[:8], "big") >> 1)
