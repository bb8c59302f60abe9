"""Every family of models, each by a small model that is trained here on real, captioned images.

OpenMoji pictures at 16x16, their names as captions: some are repeated 64 times in the training set, some occur once,
others are held out. Unconditional latent diffusion behind a vector-quantised autoencoder, Stable Diffusion
predicting noise and velocity, and rectified flows like Stable Diffusion 3 and Flux are audited for repeated and for
held-out pictures, with the prompt searched, with the caption and with the empty prompt; and the pixel model that ships
with the package, at 32x32.

    python benchmarks/families.py                    # trains missing models, then audits
    python benchmarks/families.py --only sd-noise sd3 --json families.json

Needs the extra ``reference``, and ``invmm-sd3`` and ``invmm-flux`` of ``plugins/``. Models are kept in
``runs/families``.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    UNet2DModel,
    VQModel,
)
from diffusers.pipelines.deprecated import LDMPipeline
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, mse_loss
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from benchmarks.common.data import openmoji, to_tensor
from benchmarks.common.procedure import Setup
from benchmarks.common.script import parser, show, write
from benchmarks.common.training import fit
from invmm_eval.audits.pictures import prepare
from invmm_eval.audits.plan import load_backbone
from invmm_eval.models.autoencoder import Autoencoder
from invmm_eval.models.schedule import broadcast
from invmm_eval.recipe import DEMO, Recipe
from invmm_eval.reference import COPIES as REPEATS
from invmm_eval.reference import MICRO_BATCH, MODEL, THRESHOLD, choose
from invmm_eval.reference import pictures as reference_pictures
from invmm_eval.search.result import Result, Status
from invmm_eval.search.target import Target
from invmm_eval.statistics.ranking import auc
from invmm_eval.testing.tiny import tiny_clip_tokenizer, tiny_t5_tokenizer

CACHE = Path(__file__).parents[1] / "runs" / "families"
REPEATED, SINGLE, HELD_OUT, COPIES = 6, 58, 12, 64
SIDE, LATENT_SIDE, LATENT_CHANNELS, WIDTH = 16, 8, 4, 48
BATCH = 32
TOKENS = 24
"""Places of a prompt: published models have 77 for CLIP and 256 or 512 for T5."""
LATENT: dict[str, Any] = {"threshold": 0.8}
GUIDED: dict[str, Any] = {**LATENT, "guidance": (1.0, 3.0, 5.0)}
"""Changes to the demo's recipe: what a small autoencoder draws is at 0.84 or more to its picture, so a replica is from
0.8 on, pixel-cosine's own threshold; guided families try three scales."""
DROPPED = 0.15
"""Share of captions left out in training, for classifier-free guidance."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture at 16x16, ``(3, 16, 16)`` in [-1, 1], and its name."""

    name: str
    pixels: Tensor


@dataclass(frozen=True)
class Data:
    """Pictures by what the training set does with them; ``others`` are for autoencoders alone."""

    repeated: Sequence[Picture]
    single: Sequence[Picture]
    held_out: Sequence[Picture]
    others: Sequence[Picture]

    @property
    def rows(self) -> list[Picture]:
        return [*self.single, *(picture for picture in self.repeated for _ in range(COPIES))]


def data(seed: int = 0) -> Data:
    """The reference model's pictures, of which it repeated and held out the same."""
    chosen = [Picture(picture.name, avg_pool2d(to_tensor(picture.pixels[None]), 2)[0]) for picture in openmoji()]
    shuffled = [chosen[index] for index in np.random.default_rng(seed).permutation(len(chosen))]
    ends = np.cumsum([REPEATED, SINGLE, HELD_OUT])
    return Data(shuffled[: ends[0]], shuffled[ends[0] : ends[1]], shuffled[ends[1] : ends[2]], shuffled[ends[2] :])


def pixels(chosen: Sequence[Picture]) -> Tensor:
    return torch.stack([picture.pixels for picture in chosen])


def augmented(images: Tensor) -> Tensor:
    """Rotated, mirrored and with colours exchanged, so that an autoencoder learns more than these pictures."""
    images = images[:, torch.randperm(3)].rot90(int(torch.randint(4, ())), (2, 3))
    return images.flip(3) if torch.rand(()) < 0.5 else images


CODER: dict[str, Any] = {
    "sample_size": SIDE,
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "latent_channels": LATENT_CHANNELS,
}


def train_kl(known: Data, steps: int) -> AutoencoderKL:
    """An AutoencoderKL whose scaled latents have unit variance."""
    model = AutoencoderKL(**CODER)
    images = pixels([*known.others, *known.single])

    def loss() -> Tensor:
        x = augmented(images[torch.randint(len(images), (32,))])
        posterior = model.encode(x).latent_dist
        fit_loss: Tensor = mse_loss(model.decode(posterior.sample()).sample, x) + 1e-6 * posterior.kl().mean()
        return fit_loss

    weights = list(model.parameters())
    fit(weights, loss, steps=steps, rate=2e-3, name="autoencoder").copy_to(weights)
    with torch.no_grad():
        model.register_to_config(scaling_factor=1 / model.eval().encode(images).latent_dist.mode().std().item())
    return model


def train_vq(known: Data, steps: int) -> VQModel:
    """A VQModel: first without quantising, then with a code book that starts at the clusters of its latents."""
    model = VQModel(**CODER, num_vq_embeddings=1024, vq_embed_dim=LATENT_CHANNELS)
    images = pixels([*known.others, *known.single])

    def loss(plain: bool) -> Tensor:
        x = augmented(images[torch.randint(len(images), (32,))])
        decoded = model.decode(model.encode(x).latents, force_not_quantize=plain)
        fit_loss: Tensor = mse_loss(decoded.sample, x) + 0.25 * decoded.commit_loss.mean()
        return fit_loss

    weights = list(model.parameters())
    fit(weights, lambda: loss(True), steps=steps // 2, rate=2e-3, name="autoencoder before quantising")
    with torch.no_grad():
        latents = model.encode(images).latents.movedim(1, -1).flatten(0, -2)
        clusters = KMeans(1024, n_init=1, max_iter=10, random_state=0).fit(latents[:: len(latents) // 16384 or 1])
        model.quantize.embedding.weight.copy_(torch.from_numpy(clusters.cluster_centers_))
    fit(weights, lambda: loss(False), steps=steps // 2, rate=1e-3, name="autoencoder quantising").copy_to(weights)
    with torch.no_grad():
        model.register_to_config(scaling_factor=1 / model.eval().encode(images).latents.std().item())
    return model


def words(known: Data) -> list[str]:
    """All words of the captions."""
    captioned = (*known.repeated, *known.single, *known.held_out)
    return sorted({word for picture in captioned for word in picture.name.replace("-", " ").split()})


def clip_tokenizer(known: Data, pad_token: str = "<|endoftext|>") -> CLIPTokenizer:
    """CLIP's, with few places, in which each word of the captions is one token."""
    tokenizer = tiny_clip_tokenizer(pad_token, words(known))
    tokenizer.model_max_length = TOKENS
    return tokenizer


def clip_encoder(tokenizer: CLIPTokenizer, kind: type[CLIPTextModel | CLIPTextModelWithProjection]) -> Any:
    return kind(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            projection_dim=WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def t5_encoder(tokenizer: T5Tokenizer, width: int) -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(vocab_size=len(tokenizer), d_model=width, d_kv=16, d_ff=2 * width, num_layers=2, num_heads=4)
    )


UNET: dict[str, Any] = {
    "sample_size": LATENT_SIDE,
    "in_channels": LATENT_CHANNELS,
    "out_channels": LATENT_CHANNELS,
    "block_out_channels": (WIDTH, 80),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "attention_head_dim": 4,
}
FLOW_TIMES: dict[str, Any] = {"shift": 3.0}


def latent(vae: Any, known: Data) -> LDMPipeline:  # noqa: ARG001
    unet = UNet2DModel(
        **UNET, down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D")
    )
    times = DDIMScheduler(beta_start=0.0015, beta_end=0.0195, beta_schedule="scaled_linear", clip_sample=False)
    return LDMPipeline(vae, unet, times)


def stable_diffusion(prediction_type: str, vae: Any, known: Data) -> StableDiffusionPipeline:
    tokenizer = clip_tokenizer(known, "<|endoftext|>" if prediction_type == "epsilon" else "!")
    unet = UNet2DConditionModel(
        **UNET,
        cross_attention_dim=WIDTH,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=clip_encoder(tokenizer, CLIPTextModel),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            prediction_type=prediction_type,
            clip_sample=False,
            steps_offset=1,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sd3(vae: Any, known: Data) -> StableDiffusion3Pipeline:
    first, second = clip_tokenizer(known), clip_tokenizer(known, "!")
    third = tiny_t5_tokenizer(words(known))
    transformer = SD3Transformer2DModel(
        sample_size=LATENT_SIDE,
        patch_size=2,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        num_layers=3,
        attention_head_dim=24,
        num_attention_heads=4,
        joint_attention_dim=2 * WIDTH,
        caption_projection_dim=4 * 24,
        pooled_projection_dim=2 * WIDTH,
        pos_embed_max_size=LATENT_SIDE,
        qk_norm="rms_norm",
    )
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(**FLOW_TIMES),
        vae=vae,
        text_encoder=clip_encoder(first, CLIPTextModelWithProjection),
        tokenizer=first,
        text_encoder_2=clip_encoder(second, CLIPTextModelWithProjection),
        tokenizer_2=second,
        text_encoder_3=t5_encoder(third, 2 * WIDTH),
        tokenizer_3=third,
    )


def flux(vae: Any, known: Data) -> FluxPipeline:
    first, second = clip_tokenizer(known), tiny_t5_tokenizer(words(known))
    transformer = FluxTransformer2DModel(
        in_channels=4 * LATENT_CHANNELS,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=24,
        num_attention_heads=4,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        guidance_embeds=True,
        axes_dims_rope=(8, 8, 8),
    )
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(**FLOW_TIMES),
        vae=vae,
        text_encoder=clip_encoder(first, CLIPTextModel),
        tokenizer=first,
        text_encoder_2=t5_encoder(second, WIDTH),
        tokenizer_2=second,
        transformer=transformer,
    )


Encode = Callable[[list[str]], tuple[Tensor, ...]]


def encoded(encode: Encode, prompts: list[str]) -> tuple[Tensor, ...]:
    """The encoding of each prompt, made once for each different one."""
    different = sorted(set(prompts))
    index = torch.tensor([different.index(prompt) for prompt in prompts])
    return tuple(part[index] for part in encode(different))


def unconditional_output(pipeline: Any, x_t: Tensor, t: Tensor, prompts: list[str]) -> Tensor:  # noqa: ARG001
    output: Tensor = pipeline.unet(x_t, t).sample
    return output


def clip_output(pipeline: Any, x_t: Tensor, t: Tensor, prompts: list[str]) -> Tensor:
    (hidden,) = encoded(lambda texts: pipeline.encode_prompt(texts, pipeline.device, 1, False)[:1], prompts)
    output: Tensor = pipeline.unet(x_t, t, encoder_hidden_states=hidden).sample
    return output


def sd3_output(pipeline: Any, x_t: Tensor, t: Tensor, prompts: list[str]) -> Tensor:
    def encode(texts: list[str]) -> tuple[Tensor, ...]:
        hidden, _, pooled, _ = pipeline.encode_prompt(
            texts, None, None, do_classifier_free_guidance=False, max_sequence_length=TOKENS
        )
        return hidden, pooled

    hidden, pooled = encoded(encode, prompts)
    output: Tensor = pipeline.transformer(x_t, hidden, pooled, 1000 * t).sample
    return output


def flux_output(pipeline: Any, x_t: Tensor, t: Tensor, prompts: list[str]) -> Tensor:
    hidden, pooled = encoded(lambda texts: pipeline.encode_prompt(texts, None, max_sequence_length=TOKENS)[:2], prompts)
    n, channels, height, width = x_t.shape
    packed = pipeline._pack_latents(x_t, n, channels, height, width)
    places = pipeline._prepare_latent_image_ids(n, height // 2, width // 2, x_t.device, x_t.dtype)
    guidance = torch.full((n,), 3.5)
    output = pipeline.transformer(
        packed, hidden, pooled, t, img_ids=places, txt_ids=torch.zeros(TOKENS, 3), guidance=guidance
    ).sample
    # The autoencoder's factor is 2, and _unpack_latents expects the size of the image.
    unpacked: Tensor = pipeline._unpack_latents(output, height * 2, width * 2, 2)
    return unpacked


@dataclass(frozen=True)
class Family:
    """How a family's small model is made, and the output of its network at ``x_t``."""

    autoencoder: str
    build: Callable[[Any, Data], Any]
    output: Callable[[Any, Tensor, Tensor, list[str]], Tensor]
    settings: Mapping[str, Any] = field(default_factory=lambda: GUIDED)
    modes: tuple[str, ...] = ("soft", "caption", "empty")
    options: Mapping[str, Any] = field(default_factory=dict)


FAMILIES = {
    "latent": Family("vq", latent, unconditional_output, LATENT, modes=("",)),
    "sd-noise": Family("kl", partial(stable_diffusion, "epsilon"), clip_output),
    "sd-velocity": Family("kl", partial(stable_diffusion, "v_prediction"), clip_output),
    "sd3": Family("kl", sd3, sd3_output, options={"max_sequence_length": TOKENS}),
    "flux": Family("kl", flux, flux_output, LATENT, options={"max_sequence_length": TOKENS}),
}


def train(name: str, vae: Any, known: Data, steps: int) -> Any:
    """The family's pipeline: denoiser and text encoders learn together, the autoencoder stays."""
    family = FAMILIES[name]
    torch.manual_seed(0)
    pipeline = family.build(vae, known)
    coder = Autoencoder(vae)
    with torch.no_grad():
        x = torch.cat([coder.encode(pixels([picture]) / 2 + 0.5) for picture in known.rows])
    captions = [picture.name for picture in known.rows]
    flow = isinstance(pipeline.scheduler, FlowMatchEulerDiscreteScheduler)

    def loss() -> Tensor:
        index = torch.randint(len(x), (BATCH,))
        x_0, n = x[index], torch.randn(BATCH, *x.shape[1:])
        prompts = ["" if torch.rand(()) < DROPPED else captions[i] for i in index.tolist()]
        if flow:
            t = pipeline.scheduler.sigmas[torch.randint(len(pipeline.scheduler.sigmas), (BATCH,))]
            sigma_t = broadcast(t, x_0)
            return mse_loss(family.output(pipeline, (1 - sigma_t) * x_0 + sigma_t * n, t, prompts), n - x_0)
        t = torch.randint(1000, (BATCH,))
        x_t = pipeline.scheduler.add_noise(x_0, n, t)
        velocity = pipeline.scheduler.config.prediction_type == "v_prediction"
        wanted = pipeline.scheduler.get_velocity(x_0, n, t) if velocity else n
        return mse_loss(family.output(pipeline, x_t, t, prompts), wanted)

    learning = [part for key, part in pipeline.components.items() if isinstance(part, nn.Module) and "vae" not in key]
    weights = [weight for part in learning for weight in part.train().parameters()]
    fit(weights, loss, steps=steps, rate=1e-3, name=name).copy_to(weights)
    for part in learning:
        part.eval()
    return pipeline


def trained(name: str, known: Data, steps: int) -> Path:
    """The folder of the family's model, trained if it does not exist."""
    folder = CACHE / name
    if not (folder / "model_index.json").exists():
        kind = FAMILIES[name].autoencoder
        coder, make, longer = {"kl": (AutoencoderKL, train_kl, 1.0), "vq": (VQModel, train_vq, 1.6)}[kind]
        if not (CACHE / kind).exists():
            torch.manual_seed(0)
            make(known, round(longer * steps)).save_pretrained(CACHE / kind)
        train(name, coder.from_pretrained(CACHE / kind), known, steps).save_pretrained(folder)
    return folder


def audit(
    model: Path, targets: Sequence[Target], options: Mapping[str, Any], settings: Mapping[str, Any]
) -> list[Result]:
    """The short recipe of the demo on one model."""
    setup = Setup(load_backbone(model, backbone_options=options), DEMO.changed(**settings))
    return setup.measure(targets, title=model.name, batch_size=8, micro_batch=MICRO_BATCH)


def captioned(chosen: Sequence[Picture]) -> list[Target]:
    """Pictures at the size of the latent models, with their names as captions."""
    images = ((pixels(chosen) / 2 + 0.5) * 255).round().to(torch.uint8)
    return [Target(image, p.name, p.name) for p, image in zip(chosen, images, strict=True)]


def row(name: str, mode: str, repeated: Sequence[Result], held_out: Sequence[Result], seconds: float) -> dict[str, Any]:
    """The results of one audit on both kinds of pictures."""
    return {
        "family": name,
        "prompt": mode,
        "auc": auc([r.invmm for r in repeated], [r.invmm for r in held_out]),
        "seconds": round(seconds, 1),
        "repeated": [result.record() for result in repeated],
        "held_out": [result.record() for result in held_out],
    }


def strip(target: Tensor, result: Result) -> NDArray[np.uint8]:
    """A picture, a gap, and four samples made from the noise found for it, side by side."""
    assert result.check is not None
    samples = list(result.check.samples[result.check.best_scale][:4])
    gap = torch.full((3, target.shape[1], target.shape[2] // 4), 255, dtype=torch.uint8)
    blank = [torch.full_like(target, 255)] * (4 - len(samples))
    return torch.cat([target, gap, *samples, *blank], 2).permute(1, 2, 0).numpy()


def figure(shown: Mapping[str, Sequence[tuple[str, NDArray[np.uint8]]]]) -> Figure:
    """The strips of each family, with titles."""
    columns = max(map(len, shown.values()))
    drawn = Figure(figsize=(3.1 * columns, 0.85 * len(shown)), layout="constrained")
    for axes, (name, strips) in zip(drawn.subplots(len(shown), columns, squeeze=False), shown.items(), strict=True):
        for axis, (title, pixels) in zip(axes, strips, strict=True):
            axis.imshow(pixels)
            axis.set_title(title, fontsize=8)
            axis.axis("off")
        axes[0].text(-0.03, 0.5, name, transform=axes[0].transAxes, ha="right", va="center", fontsize=9)
    return drawn


def summary(group: Sequence[Mapping[str, Any]]) -> str:
    """The number of a group that was replicated, and the range of values."""
    values = sorted(one["invmm"] for one in group if one["status"] == Status.REPLICATED)
    spread = f", InvMM {values[0]:.3f} to {values[-1]:.3f}" if values else ""
    return f"{len(values)} of {len(group)}{spread}"


def verdict(result: Result) -> str:
    return f"InvMM {result.invmm:.3f}" if result.status is Status.REPLICATED else "not replicated"


COLUMNS = ("family", "prompt", "repeated", "held out", "AUC", "seconds")


def cells(one: Mapping[str, Any]) -> tuple[str, ...]:
    """The table's row of one audit."""
    groups = summary(one["repeated"]), summary(one["held_out"])
    return (one["family"], one["prompt"] or "-", *groups, f"{one['auc']:.2f}", f"{one['seconds']:.0f}")


def pixel_targets(count: int) -> list[Target]:
    """The reference model's most repeated pictures, and as many held-out ones."""
    chosen = choose(reference_pictures(), each=count, held_out=count)
    repeated, held_out = ([p for p in chosen if p.copies == copies] for copies in (REPEATS[0], 0))
    count = min(len(repeated), len(held_out))
    return [Target(prepare(p.image, (3, 32, 32)), p.name) for p in (*repeated[:count], *held_out[:count])]


def main(arguments: Sequence[str] | None = None) -> None:
    known = parser(__doc__)
    known.add_argument("--only", nargs="+", choices=["pixel", *FAMILIES], default=["pixel", *FAMILIES])
    known.add_argument("--steps", type=int, default=2500, help="training steps of each model; about an hour in all")
    known.add_argument("--audited", type=int, default=4, help="pictures of each kind")
    known.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    known.add_argument("--picture", type=Path)
    options = known.parse_args(arguments)
    torch.set_num_threads(1)
    images = data()
    changes = Recipe.parse(options.set)
    rows: list[dict[str, Any]] = []
    shown: dict[str, list[tuple[str, NDArray[np.uint8]]]] = {}

    def measure(
        name: str,
        mode: str,
        model: Path,
        targets: Sequence[Target],
        backbone_options: Mapping[str, Any],
        settings: Mapping[str, Any],
    ) -> None:
        started = time.perf_counter()
        results = audit(model, targets, backbone_options, {**settings, **changes})
        half = len(targets) // 2
        rows.append(row(name, mode, results[:half], results[half:], time.perf_counter() - started))
        show(COLUMNS, [cells(rows[-1])])
        write(options.json, rows)
        if mode in ("", "soft"):
            shown[name] = [
                (f"{kind}: {verdict(results[i])}", strip(targets[i].image, results[i]))
                for kind, first in (("repeated", 0), ("held out", half))
                for i in range(first, first + min(2, half))
            ]

    if "pixel" in options.only:
        measure("pixel", "", MODEL, pixel_targets(options.audited), {}, {"threshold": THRESHOLD})
    for name, family in FAMILIES.items():
        if name in options.only:
            model = trained(name, images, options.steps)
            targets = captioned([*images.repeated[: options.audited], *images.held_out[: options.audited]])
            for mode in family.modes:
                prompt = {"prompt_mode": mode} if mode else {}
                measure(name, mode, model, targets, {**family.options, **prompt}, family.settings)
    show(COLUMNS, map(cells, rows))
    if options.picture:
        figure(shown).savefig(options.picture, dpi=110)


if __name__ == "__main__":
    main()
