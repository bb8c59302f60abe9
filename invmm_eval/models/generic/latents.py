"""Between images and what a pipeline denoises, by the pipeline's own decoding.

A pipeline turns its denoised latents into its autoencoder's by scaling, shifting and reordering their numbers (factors
of the config, means and spreads per channel, batch statistics, patches, packing). This map is learned: latents that
name their own places go through the pipeline once. Encoding is its inverse. x_0 has the order of the autoencoder.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Generator, Tensor

from invmm_eval.errors import InvMMError
from invmm_eval.models.generic.boundary import Boundary
from invmm_eval.models.generic.probe import Done, Probe

_BASE = 256
_TOLERANCE = 1e-4
PIXELS = 512 * 512
"""The most pixels that are decoded at once, or one image: decoding takes more memory for each than the network."""


class Latents:
    """x_0 of a pipeline, as its autoencoder orders the numbers; the pipeline may denoise them in another order.

    Args:
        boundary: The pipeline.
        shape: The shape of a row of what it denoises.
        given: What a call for one row takes besides latents.

    Attributes:
        shape: The shape of a row of x_0.
        image_shape: Channels, height and width of images.
        small: An AutoencoderTiny that decodes instead, if any.

    Raises:
        InvMMError: The pipeline's decoding is not of this kind.
    """

    def __init__(self, boundary: Boundary, shape: tuple[int, ...], given: Mapping[str, Any]) -> None:
        self._denoised = shape
        self.small: Any = None
        self._autoencoder = boundary.autoencoder
        self._order: tuple[Tensor, Tensor] | None = None
        if self._autoencoder is None:
            channels, height, width = self.shape = shape
            self.image_shape: tuple[int, int, int] = channels, height, width
            return
        size = torch.Size(shape).numel()
        places = torch.arange(size, device=boundary.device)
        digits = max(1, -(-(size - 1).bit_length() // (_BASE.bit_length() - 1)))
        random = torch.randn(size, generator=Generator().manual_seed(0)).to(boundary.device)
        named = [places // _BASE**power % _BASE for power in range(digits)]
        rows = torch.stack([torch.zeros_like(random), torch.ones_like(random), random, *map(Tensor.float, named)])
        decoded = [_decoded(boundary, row.reshape(1, *shape), given) for row in rows]
        z, self._decode = decoded[0]
        self._z_shape = z.shape[1:]
        # A picture is a video of one frame.
        self.shape = tuple((z.squeeze(2) if z.ndim == 5 else z).shape[1:])
        with torch.no_grad():
            image = _image(self._decode(z))
        zero, one, found, *read = (z.reshape(1, *self.shape) for z, _ in decoded)
        self._shift, self._factor = zero, _factor(one - zero, self._autoencoder.config)
        order = sum(
            (((row - zero) * self._factor).round().long() * _BASE**power for power, row in enumerate(read)),
            start=torch.zeros_like(zero, dtype=torch.long),
        ).flatten()
        _, channels, height, width = image.shape
        self.image_shape = channels, height, width
        kept = len(order) == size and bool((order.sort().values == places).all())
        if kept and not torch.equal(order, places):
            self._order = order, order.argsort()
        if not kept or (self._z(self.ordered(random[None])) - found).abs().max() > _TOLERANCE * found.abs().max():
            raise InvMMError(
                "The pipeline decodes its latents in a way that cannot be inverted: they are not those of its "
                f"{type(self._autoencoder).__name__}, scaled, shifted and reordered."
            )

    def denoised(self, x_0: Tensor) -> Tensor:
        """Rows of x_0, of noise or of x_t in the order in which the pipeline denoises them."""
        flat = x_0.flatten(1)
        return (flat if self._order is None else flat.index_select(1, self._order[1])).reshape(-1, *self._denoised)

    def ordered(self, denoised: Tensor) -> Tensor:
        """The inverse of :meth:`denoised`."""
        flat = denoised.flatten(1)
        return (flat if self._order is None else flat.index_select(1, self._order[0])).reshape(-1, *self.shape)

    def _z(self, x_0: Tensor) -> Tensor:
        z: Tensor = x_0 / self._factor + self._shift
        return z

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """x_0 ``(n, ...)`` of ``images`` ``(n, C, H, W)`` in [0, 1]."""
        signed = images * 2 - 1
        if self._autoencoder is None:
            return signed
        z = torch.cat([self._posterior(row) for row in torch.split(signed, 1)]).reshape(-1, *self.shape)
        x_0: Tensor = (z - self._shift) * self._factor
        return x_0

    def decode(self, x_0: Tensor) -> Tensor:
        """Images ``(n, C, H, W)``, clipped to [0, 1]."""
        if self._autoencoder is None:
            return (x_0 / 2 + 0.5).clamp(0, 1)
        _, height, width = self.image_shape
        # A decoder of videos may have arguments for one row.
        at_once = max(1, PIXELS // (height * width)) if len(self._z_shape) == 3 else 1
        if self.small is not None:
            z = torch.split(x_0 / self.small.config.scaling_factor, at_once)
            images = [self.small.decode(rows).sample for rows in z]
        else:
            z = torch.split(self._z(x_0).reshape(-1, *self._z_shape), at_once)
            images = [_image(self._decode(rows)) for rows in z]
        return (torch.cat(images) / 2 + 0.5).clamp(0, 1)

    @torch.no_grad()
    def reconstruct(self, images: Tensor) -> Tensor:
        """The autoencoder's own images of ``images``, without the pipeline."""
        if self._autoencoder is None:
            return images
        z = self._posterior(images * 2 - 1).reshape(-1, *self._z_shape)
        return (_image(self._decode(z)) / 2 + 0.5).clamp(0, 1)

    def _posterior(self, image: Tensor) -> Tensor:
        """The mode of the posterior, or what the encoder gives where there is none."""
        frames = image.unsqueeze(2) if len(self._z_shape) == 4 else image
        found = self._autoencoder.encode(frames)
        for name in ("latent_dist", "latents", "latent"):
            if hasattr(found, name):
                z = getattr(found, name)
                mode: Tensor = z.mode() if name == "latent_dist" else z
                return mode
        raise InvMMError(f"{type(self._autoencoder).__name__} encodes in a way that is not known.")


def _factor(scale: Tensor, config: Mapping[str, Any]) -> float | Tensor:
    """What latents of the autoencoder are multiplied by: the config's number where the pipeline uses it."""
    stated = config.get("scaling_factor")
    factor: Tensor = 1 / scale
    return stated if stated and torch.allclose(factor, torch.full_like(factor, stated)) else factor


def _decoded(boundary: Boundary, x_0: Tensor, given: Mapping[str, Any]) -> tuple[Tensor, Callable[[Tensor], Any]]:
    """What the pipeline gives its autoencoder to decode, and the decoder with the arguments that it gives besides."""
    autoencoder = boundary.autoencoder
    decode = autoencoder.decode

    def read(z: Tensor, *args: Any, **options: Any) -> Any:
        options = {name: value for name, value in options.items() if name not in ("generator", "return_dict")}
        raise Done((z.float(), lambda z: decode(z, *args, **options)))

    vars(autoencoder)["decode"] = read
    probe = Probe(
        boundary.pipe.scheduler, torch.full((1,), boundary.train_times / 2, device=x_0.device), lambda *_: x_0
    )
    try:
        with torch.no_grad():
            found = boundary.call(1, probe, x_t=x_0, **given)
    finally:
        vars(autoencoder)["decode"] = decode
    if not isinstance(found, tuple) or len(found) != 2:
        raise InvMMError("The pipeline does not decode its latents by its autoencoder.")
    return found


def _image(output: Any) -> Tensor:
    """The images of a decoder's output; of videos the only frame."""
    sample: Tensor = output.sample
    return sample if sample.ndim == 4 else sample[:, :, 0]
