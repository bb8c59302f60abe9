"""Draw what a KL of 0.05, 0.5 and 3 nats per dimension does to noise.

    python benchmarks/noise_picture.py

A mean ``mu`` of length ``sqrt(2 D KL)`` costs that KL. Here it points towards a picture: the eye sees when the noise
begins to show it. Writes docs/noise.png.
"""

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from invmm_eval.reference import pictures

VALUES = (0.0, 0.05, 0.5, 3.0)


def bent(picture: torch.Tensor, kl: float, z: torch.Tensor) -> torch.Tensor:
    """Noise ``mu + z`` with ``mu`` along the centred picture, so that ``KL(N(mu, I) || N(0, I)) / D`` is ``kl``."""
    direction = picture - picture.mean()
    mu: torch.Tensor = direction * (2 * kl / direction.square().mean()).sqrt()
    return mu + z


def main() -> None:
    picture = torch.from_numpy(np.array(pictures()[0].image)).float() / 255
    z = torch.randn(picture.shape, generator=torch.Generator().manual_seed(0))
    figure = Figure(figsize=(10, 2.4), layout="constrained")
    for axis, kl in zip(figure.subplots(1, len(VALUES)), VALUES, strict=True):
        axis.imshow((bent(picture, kl, z) / 6 + 0.5).clamp(0, 1))
        axis.set_title(f"{kl:g} nats per dimension" if kl else "standard normal", fontsize=11)
        axis.axis("off")
    figure.savefig(Path(__file__).parents[1] / "docs" / "noise.png", dpi=100)


if __name__ == "__main__":
    main()
