"""The families, and how their small models are trained."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from benchmarks.common.training import fit
from benchmarks.families import generic, own
from benchmarks.families.autoencoders import AUTOENCODERS
from benchmarks.families.data import Data, Picture, stacked
from invmm_eval.models.autoencoder import Autoencoder
from invmm_eval.models.schedule import broadcast

CACHE = Path(__file__).parents[2] / "runs" / "families"
BATCH = 32
DROPPED = 0.15
"""Share of captions left out in training, for classifier-free guidance."""
SHIFT = 3.0
"""The shift of the times at which rectified flows are trained."""

LATENT: dict[str, Any] = {"threshold": 0.8}
GUIDED: dict[str, Any] = {**LATENT, "guidance": (1.0, 3.0, 5.0)}
"""Changes to the recipe: what a small autoencoder draws is at 0.84 or more to its picture, so a replica is from
0.8 on, pixel-cosine's own threshold; guided families try three scales."""


def mode_latents(pipeline: Any, images: Tensor) -> Tensor:
    """x_0 of most families for ``images`` in [-1, 1]."""
    return Autoencoder(pipeline.components.get("vae") or pipeline.vqvae).encode(images / 2 + 0.5)


@dataclass(frozen=True)
class Family:
    """How a family's small model is made, and the output of its network at ``x_t``.

    Attributes:
        side: Height and width of its images.
        encode: x_0 for images in [-1, 1].
        caption: The text of a picture that the model takes.
        settings: Changes to the recipe.
        options: Options of its backbone.
    """

    autoencoder: str
    build: Callable[[Any, Data], Any]
    output: Callable[[Any, Tensor, Tensor, list[str]], Tensor]
    settings: Mapping[str, Any] = field(default_factory=lambda: GUIDED)
    modes: tuple[str, ...] = ("soft", "caption", "empty")
    options: Mapping[str, Any] = field(default_factory=dict)
    side: int = own.SIDE
    encode: Callable[[Any, Tensor], Tensor] = mode_latents
    caption: Callable[[Picture], str] = lambda picture: picture.name


_own = {"max_sequence_length": own.TOKENS}
_generic: dict[str, Any] = {
    "side": generic.SIDE,
    "options": {"max_sequence_length": generic.TOKENS, "image_size": generic.SIDE},
}

FAMILIES = {
    "latent": Family("vq", own.latent, own.unconditional_output, LATENT, modes=("",)),
    "sd-noise": Family("kl", partial(own.stable_diffusion, "epsilon"), own.clip_output),
    "sd-velocity": Family("kl", partial(own.stable_diffusion, "v_prediction"), own.clip_output),
    "sd3": Family("kl", own.sd3, own.sd3_output, options=_own),
    "flux": Family("kl", own.flux, own.flux_output, LATENT, options=_own),
    "sana": Family("dc", generic.sana, generic.sana_output, encode=generic.deep_latents, **_generic),
    "z-image": Family("kl", generic.z_image, generic.z_image_output, **_generic),
    "flux2-klein": Family(
        "flux2", generic.flux2_klein, generic.flux2_klein_output, encode=generic.normal_patches, **_generic
    ),
    "dit": Family("kl", generic.dit, generic.dit_output, side=generic.SIDE, caption=lambda picture: picture.row),
}


def train(name: str, vae: Any, known: Data, steps: int, device: torch.device) -> Any:
    """The family's pipeline: denoiser and text encoders learn together, the autoencoder stays."""
    family = FAMILIES[name]
    torch.manual_seed(0)
    pipeline = family.build(vae, known).to(device)
    with torch.no_grad():
        different = {picture: family.encode(pipeline, stacked([picture]).to(device)) for picture in set(known.rows)}
        x = torch.cat([different[picture] for picture in known.rows])
    captions = [family.caption(picture) for picture in known.rows]
    config = pipeline.scheduler.config
    prediction = "flow_prediction" if "prediction_type" not in config else config.prediction_type
    sigmas = FlowMatchEulerDiscreteScheduler(shift=SHIFT).sigmas

    def loss() -> Tensor:
        index = torch.randint(len(x), (BATCH,))
        x_0, n = x[index], torch.randn(BATCH, *x.shape[1:]).to(device)
        prompts = ["" if torch.rand(()) < DROPPED else captions[i] for i in index.tolist()]
        if prediction == "flow_prediction":
            t = sigmas[torch.randint(len(sigmas), (BATCH,))].to(device)
            sigma_t = broadcast(t, x_0)
            return mse_loss(family.output(pipeline, (1 - sigma_t) * x_0 + sigma_t * n, t, prompts), n - x_0)
        t = torch.randint(1000, (BATCH,)).to(device)
        x_t = pipeline.scheduler.add_noise(x_0, n, t)
        wanted = pipeline.scheduler.get_velocity(x_0, n, t) if prediction == "v_prediction" else n
        return mse_loss(family.output(pipeline, x_t, t, prompts), wanted)

    learning = [part for key, part in pipeline.components.items() if isinstance(part, nn.Module) and "vae" not in key]
    weights = [weight for part in learning for weight in part.train().parameters()]
    fit(weights, loss, steps=steps, rate=1e-3, name=name).copy_to(weights)
    for part in learning:
        part.eval()
    return pipeline


def trained(name: str, known: Data, steps: int, device: torch.device) -> Path:
    """The folder of the family's model, trained if it does not exist."""
    family, folder = FAMILIES[name], CACHE / name
    if not (folder / "model_index.json").exists():
        kind, make = AUTOENCODERS[family.autoencoder]
        coder = CACHE / f"{family.autoencoder}-{family.side}"
        if not coder.exists():
            torch.manual_seed(0)
            make(known, steps, device).save_pretrained(coder)
        train(name, kind.from_pretrained(coder).to(device), known, steps, device).save_pretrained(folder)
    return folder


def load(folder: Path, device: torch.device) -> Any:
    """A pipeline that was trained, without progress bars."""
    pipeline = DiffusionPipeline.from_pretrained(folder).to(device)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
