"""Families that the backbone ``diffusers`` serves: their small models, at 32x32, and what the networks return.

Outputs are in the convention of the pipeline's scheduler, written from the calls of the pipelines themselves, so that
the models owe nothing to the backbone that they test.
"""

import inspect
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    DPMSolverMultistepScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from diffusers import FlowMatchEulerDiscreteScheduler as Flow
from torch import Tensor
from transformers import Gemma2Config, Gemma2Model, Qwen3Config, Qwen3ForCausalLM, Qwen3Model

from benchmarks.families.autoencoders import CHANNELS, DEEP_CHANNELS
from benchmarks.families.data import ROWS, Data, words
from benchmarks.families.own import encoded
from tests.helpers.families.parts import byte_tokenizer, gemma_tokenizer

SIDE = 32
HEADS, HEAD = 4, 32
WIDTH = 48
TOKENS = 32
"""Places of a prompt: published models have 300 or 512."""

INSTRUCTION: list[str] = inspect.signature(SanaPipeline.__call__).parameters["complex_human_instruction"].default
"""What Sana's pipeline puts before a prompt."""

PLACEHOLDERS = ["a", "b", "cat", "dog", "red", "blue"]
"""Words that the backbone looks for a prompt's tokens with."""

TEXT: dict[str, Any] = {
    "hidden_size": WIDTH,
    "intermediate_size": 2 * WIDTH,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}


def sana(vae: Any, known: Data) -> SanaPipeline:
    instruction = "\n".join(INSTRUCTION).split()
    tokenizer = gemma_tokenizer([*words(known), *PLACEHOLDERS, *instruction])
    transformer = SanaTransformer2DModel(
        in_channels=DEEP_CHANNELS,
        out_channels=DEEP_CHANNELS,
        num_layers=4,
        num_attention_heads=HEADS,
        attention_head_dim=HEAD,
        num_cross_attention_heads=HEADS,
        cross_attention_head_dim=HEAD,
        cross_attention_dim=HEADS * HEAD,
        caption_channels=WIDTH,
        sample_size=SIDE // 4,
    )
    times = DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    return SanaPipeline(
        tokenizer=tokenizer,
        text_encoder=Gemma2Model(Gemma2Config(vocab_size=len(tokenizer), num_hidden_layers=2, **TEXT)),
        vae=vae,
        transformer=transformer,
        scheduler=times,
    )


def z_image(vae: Any, known: Data) -> ZImagePipeline:
    tokenizer = byte_tokenizer(words=[*words(known), *PLACEHOLDERS])
    transformer = ZImageTransformer2DModel(
        in_channels=CHANNELS,
        dim=HEADS * HEAD,
        n_layers=3,
        n_refiner_layers=1,
        n_heads=HEADS,
        n_kv_heads=HEADS,
        cap_feat_dim=WIDTH,
        axes_dims=[8, 12, 12],
        axes_lens=[512, 64, 64],
    )
    return ZImagePipeline(
        scheduler=Flow(shift=3.0),
        vae=vae,
        text_encoder=Qwen3Model(Qwen3Config(vocab_size=len(tokenizer), num_hidden_layers=3, **TEXT)),
        tokenizer=tokenizer,
        transformer=transformer,
    )


def flux2_klein(vae: Any, known: Data) -> Flux2KleinPipeline:
    tokenizer = byte_tokenizer(words=[*words(known), *PLACEHOLDERS])
    transformer = Flux2Transformer2DModel(
        in_channels=4 * CHANNELS,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=HEAD,
        num_attention_heads=HEADS,
        joint_attention_dim=3 * WIDTH,
        timestep_guidance_channels=HEAD,
        axes_dims_rope=[8, 8, 8, 8],
        guidance_embeds=False,
    )
    return Flux2KleinPipeline(
        scheduler=Flow(use_dynamic_shifting=True),
        vae=vae,
        # The pipeline reads layers 9, 18 and 27.
        text_encoder=Qwen3ForCausalLM(Qwen3Config(vocab_size=len(tokenizer), num_hidden_layers=28, **TEXT)),
        tokenizer=tokenizer,
        transformer=transformer,
    )


def dit(vae: Any, known: Data) -> DiTPipeline:  # noqa: ARG001
    transformer = DiTTransformer2DModel(
        sample_size=SIDE // 2,
        num_layers=4,
        patch_size=2,
        attention_head_dim=HEAD,
        num_attention_heads=HEADS,
        in_channels=CHANNELS,
        out_channels=2 * CHANNELS,
        num_embeds_ada_norm=len(ROWS),
    )
    times = DDIMScheduler(beta_start=0.0001, beta_end=0.02, clip_sample=False)
    pipeline = DiTPipeline(transformer=transformer, vae=vae, scheduler=times, id2label=dict(enumerate(ROWS)))
    # save_pretrained leaves the names of classes out otherwise.
    pipeline.register_to_config(id2label=dict(enumerate(ROWS)))
    return pipeline


def sana_output(pipeline: Any, x_t: Tensor, t: Tensor, prompts: list[str]) -> Tensor:
    def encode(texts: list[str], instruction: list[str] | None = INSTRUCTION) -> tuple[Tensor, ...]:
        parts: tuple[Tensor, ...] = pipeline.encode_prompt(
            texts, False, max_sequence_length=TOKENS, complex_human_instruction=instruction
        )[:2]
        return parts

    hidden, mask = encoded(encode, prompts)
    # The pipeline guides by an empty prompt without instruction, and draws from one with it.
    empty = [row for row, prompt in enumerate(prompts) if not prompt][::2]
    hidden[empty], mask[empty] = encode([""], None)
    output: Tensor = pipeline.transformer(
        x_t, encoder_hidden_states=hidden, encoder_attention_mask=mask, timestep=1000 * t
    ).sample
    return output


def z_image_output(pipeline: Any, x_t: Tensor, t: Tensor, prompts: list[str]) -> Tensor:
    different = sorted(set(prompts))
    rows = pipeline.encode_prompt(different[:], do_classifier_free_guidance=False, max_sequence_length=TOKENS)[0]
    hidden = [rows[different.index(prompt)] for prompt in prompts]
    output: list[Tensor] = pipeline.transformer(list(x_t.unsqueeze(2)), 1 - t, hidden, return_dict=False)[0]
    return -torch.stack(output).squeeze(2)


def flux2_klein_output(pipeline: Any, x_t: Tensor, t: Tensor, prompts: list[str]) -> Tensor:
    hidden, text_ids = encoded(lambda texts: pipeline.encode_prompt(texts, max_sequence_length=TOKENS), prompts)
    output = pipeline.transformer(
        hidden_states=pipeline._pack_latents(x_t),
        timestep=t,
        guidance=None,
        encoder_hidden_states=hidden,
        txt_ids=text_ids,
        img_ids=pipeline._prepare_latent_ids(x_t).to(x_t.device),
    ).sample
    unpacked: Tensor = output.movedim(1, 2).reshape(x_t.shape)
    return unpacked


def dit_output(pipeline: Any, x_t: Tensor, t: Tensor, prompts: list[str]) -> Tensor:
    labels = torch.tensor([pipeline.labels.get(prompt, len(ROWS)) for prompt in prompts], device=x_t.device)
    output: Tensor = pipeline.transformer(x_t, timestep=t, class_labels=labels).sample[:, :CHANNELS]
    return output


def deep_latents(pipeline: Any, images: Tensor) -> Tensor:
    """x_0 of Sana for ``images`` in [-1, 1]."""
    x_0: Tensor = pipeline.vae.encode(images).latent * pipeline.vae.config.scaling_factor
    return x_0


def normal_patches(pipeline: Any, images: Tensor) -> Tensor:
    """x_0 of FLUX.2 for ``images`` in [-1, 1], not packed."""
    vae = pipeline.vae
    z = pipeline._patchify_latents(vae.encode(images).latent_dist.mode())
    mean, variance = (part.view(1, -1, 1, 1) for part in (vae.bn.running_mean, vae.bn.running_var))
    x_0: Tensor = (z - mean) / (variance + vae.config.batch_norm_eps).sqrt()
    return x_0
