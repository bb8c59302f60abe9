"""The families, and how their small models are trained: those of the tests, made wider."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, DiTPipeline, FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from transformers import CLIPTokenizer, GemmaTokenizer, PreTrainedModel, T5Tokenizer

from benchmarks.common.training import fit
from benchmarks.families import autoencoders, outputs
from benchmarks.families.autoencoders import CHANGES
from benchmarks.families.data import ROWS, Data, row_of, stacked, words
from benchmarks.families.outputs import INSTRUCTION, TOKENS
from invmm_eval.models.schedule import broadcast
from invmm_eval.reference import Picture
from invmm_eval.testing import tiny
from tests.helpers import families
from tests.helpers.families import others, parts

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


@dataclass(frozen=True)
class Family:
    """How a family's small model is made, and the output of its network at ``x_t``.

    Attributes:
        autoencoder: Its kind.
        base: The pipeline of the tests.
        output: The output of the network for prompts.
        settings: Changes to the recipe.
        modes: How its prompt is audited.
        side: Height and width of its images.
        caption: The text of a picture that the model takes.
        options: Options of its backbone.
    """

    autoencoder: str
    base: Callable[[], Any]
    output: Callable[[Any, Tensor, Tensor, list[str]], Tensor]
    settings: Mapping[str, Any] = field(default_factory=lambda: GUIDED)
    modes: tuple[str, ...] = ("soft", "caption", "empty")
    side: int = 16
    caption: Callable[[Picture], str] = lambda picture: picture.name
    options: Mapping[str, Any] = field(default_factory=dict)


def _stable_diffusion(version: int) -> Any:
    pipeline = tiny.tiny_stable_diffusion(version)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    return pipeline


_prompts = {"max_sequence_length": TOKENS}
_generic: dict[str, Any] = {"side": 32, "options": {**_prompts, "image_size": 32}}
FAMILIES = {
    "latent": Family("vq", tiny.tiny_ldm, outputs.unconditional, LATENT, modes=("",)),
    "sd-noise": Family("kl", partial(_stable_diffusion, 1), outputs.stable_diffusion),
    "sd-velocity": Family("kl", partial(_stable_diffusion, 2), outputs.stable_diffusion),
    "sd3": Family("kl", tiny.tiny_sd3, outputs.sd3, options=_prompts),
    "flux": Family("kl", tiny.tiny_flux, outputs.flux, LATENT, options=_prompts),
    "sana": Family("dc", families.FAMILIES["sana"], outputs.sana, **_generic),
    "z-image": Family("kl", families.FAMILIES["z-image"], outputs.z_image, **_generic),
    "flux2-klein": Family("flux2", families.FAMILIES["flux2-klein"], outputs.flux2_klein, **_generic),
    "dit": Family("kl", others.dit, outputs.dit, side=32, caption=row_of),
}


def widened(part: Any, **changes: Any) -> Any:
    """Another network or scheduler of the class and config of one, but for changes."""
    if isinstance(part, PreTrainedModel):
        return type(part)(type(part.config).from_dict({**part.config.to_dict(), **changes}))
    return type(part).from_config(part.config, **changes)


def worded(tokenizer: Any, known: Data) -> tuple[Any, dict[str, int]]:
    """Another tokenizer of a kind, for which each word of captions is one token, and what its text encoder gets."""
    found = words(known)
    if isinstance(tokenizer, CLIPTokenizer):
        made: Any = tiny.tiny_clip_tokenizer(tokenizer.pad_token, found)
        made.model_max_length = TOKENS
        marks = {f"{mark}_token_id": getattr(made, f"{mark}_token_id") for mark in ("bos", "eos", "pad")}
        return made, {"vocab_size": len(made), **marks}
    if isinstance(tokenizer, T5Tokenizer):
        made = tiny.tiny_t5_tokenizer(found)
    else:
        found += ["a", "b", "cat", "dog", "red", "blue"]  # with which the backbone looks for a prompt's tokens
        gemma = isinstance(tokenizer, GemmaTokenizer)
        instruction = "\n".join(INSTRUCTION).split()
        made = parts.gemma_tokenizer([*found, *instruction]) if gemma else parts.byte_tokenizer(words=found)
    return made, {"vocab_size": len(made)}


def build(name: str, vae: Any, known: Data) -> Any:
    """The family's pipeline, not trained."""
    base = FAMILIES[name].base()
    changes = {**CHANGES, "sd-velocity": CHANGES["sd-noise"]}[name]
    made = {"vqvae" if "vqvae" in base.components else "vae": vae}
    for part, old in base.components.items():
        if part.startswith("tokenizer"):
            made[part], settings = worded(old, known)
            encoder = part.replace("tokenizer", "text_encoder")
            settings |= changes.get(encoder, changes["text_encoder"])
            made[encoder] = widened(base.components[encoder], **settings)
        elif part in changes and part not in made:
            made[part] = widened(old, **changes[part])
    takes = inspect.signature(type(base).__init__).parameters
    options = {name: base.config[name] for name in takes if name in base.config and name not in base.components}
    pipeline = type(base)(**{**base.components, **made}, **options)
    if isinstance(pipeline, DiTPipeline):
        pipeline.labels = {name: index for index, name in enumerate(ROWS)}
        pipeline.register_to_config(id2label=dict(enumerate(ROWS)))
    return pipeline


def train(name: str, vae: Any, known: Data, steps: int, device: torch.device) -> Any:
    """The family's pipeline: denoiser and text encoders learn together, the autoencoder stays."""
    family = FAMILIES[name]
    torch.manual_seed(0)
    pipeline = build(name, vae, known).to(device)
    with torch.no_grad():
        different = {one: autoencoders.latents(vae, stacked([one], family.side).to(device)) for one in set(known.rows)}
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
    fit(learning, loss, steps=steps, rate=1e-3, name=name)
    return pipeline


def trained(name: str, known: Data, steps: int, device: torch.device) -> Path:
    """The folder of the family's model, trained if it does not exist."""
    kind, side, folder = FAMILIES[name].autoencoder, FAMILIES[name].side, CACHE / name
    if not (folder / "model_index.json").exists():
        coder = CACHE / f"{kind}-{side}"
        if not coder.exists():
            torch.manual_seed(0)
            autoencoders.trained(kind, side, known, steps, device).save_pretrained(coder)
        model = autoencoders.BASES[kind]().from_pretrained(coder).to(device)
        train(name, model, known, steps, device).save_pretrained(folder)
    return folder
