"""What the networks of families return, in the convention of the pipeline's scheduler.

They are written from the calls of the pipelines themselves, so that the models owe nothing to the backbones that they
test.
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from diffusers import SanaPipeline
from torch import Tensor

TOKENS = 32
"""Places of a prompt: published models have 77 for CLIP and 256 to 512 for others."""
INSTRUCTION: list[str] = inspect.signature(SanaPipeline.__call__).parameters["complex_human_instruction"].default
"""What Sana's pipeline puts before a prompt."""


def encoded(encode: Callable[[list[str]], tuple[Tensor, ...]], prompts: list[str]) -> tuple[Tensor, ...]:
    """The encoding of each prompt, made once for each different one."""
    different = sorted(set(prompts))
    index = torch.tensor([different.index(prompt) for prompt in prompts])
    return tuple(part[index] for part in encode(different))


def unconditional(pipeline: Any, x_t: Tensor, t: Tensor, prompts: list[str]) -> Tensor:  # noqa: ARG001
    output: Tensor = pipeline.unet(x_t, t).sample
    return output


def stable_diffusion(pipeline: Any, x_t: Tensor, t: Tensor, prompts: list[str]) -> Tensor:
    (hidden,) = encoded(lambda texts: pipeline.encode_prompt(texts, pipeline.device, 1, False)[:1], prompts)
    output: Tensor = pipeline.unet(x_t, t, encoder_hidden_states=hidden).sample
    return output


def sd3(pipeline: Any, x_t: Tensor, t: Tensor, prompts: list[str]) -> Tensor:
    def encode(texts: list[str]) -> tuple[Tensor, ...]:
        options = {"do_classifier_free_guidance": False, "max_sequence_length": TOKENS}
        return pipeline.encode_prompt(texts, None, None, **options)[::2]  # type: ignore[no-any-return]

    hidden, pooled = encoded(encode, prompts)
    output: Tensor = pipeline.transformer(x_t, hidden, pooled, 1000 * t).sample
    return output


def flux(pipeline: Any, x_t: Tensor, t: Tensor, prompts: list[str]) -> Tensor:
    hidden, pooled = encoded(lambda texts: pipeline.encode_prompt(texts, None, max_sequence_length=TOKENS)[:2], prompts)
    n, channels, height, width = x_t.shape
    output = pipeline.transformer(
        pipeline._pack_latents(x_t, n, channels, height, width),
        hidden,
        pooled,
        t,
        img_ids=pipeline._prepare_latent_image_ids(n, height // 2, width // 2, x_t.device, x_t.dtype),
        txt_ids=torch.zeros(TOKENS, 3, device=x_t.device),
        guidance=torch.full((n,), 3.5, device=x_t.device),
    ).sample
    # The autoencoder's factor is 2, and _unpack_latents expects the size of the image.
    unpacked: Tensor = pipeline._unpack_latents(output, height * 2, width * 2, 2)
    return unpacked


def sana(pipeline: Any, x_t: Tensor, t: Tensor, prompts: list[str]) -> Tensor:
    def encode(texts: list[str], instruction: list[str] | None = INSTRUCTION) -> tuple[Tensor, ...]:
        options = {"max_sequence_length": TOKENS, "complex_human_instruction": instruction}
        return pipeline.encode_prompt(texts, False, **options)[:2]  # type: ignore[no-any-return]

    hidden, mask = encoded(encode, prompts)
    # The pipeline guides by an empty prompt without instruction, and draws from one with it.
    empty = [row for row, prompt in enumerate(prompts) if not prompt][::2]
    hidden[empty], mask[empty] = encode([""], None)
    output: Tensor = pipeline.transformer(
        x_t, encoder_hidden_states=hidden, encoder_attention_mask=mask, timestep=1000 * t
    ).sample
    return output


def z_image(pipeline: Any, x_t: Tensor, t: Tensor, prompts: list[str]) -> Tensor:
    different = sorted(set(prompts))
    rows = pipeline.encode_prompt(different[:], do_classifier_free_guidance=False, max_sequence_length=TOKENS)[0]
    hidden = [rows[different.index(prompt)] for prompt in prompts]
    output: list[Tensor] = pipeline.transformer(list(x_t.unsqueeze(2)), 1 - t, hidden, return_dict=False)[0]
    return -torch.stack(output).squeeze(2)


def flux2_klein(pipeline: Any, x_t: Tensor, t: Tensor, prompts: list[str]) -> Tensor:
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


def row_number(pipeline: Any, prompt: str) -> int:
    """The class of a prompt; after the last is none."""
    number: int = pipeline.labels.get(prompt, len(pipeline.labels))
    return number


def dit(pipeline: Any, x_t: Tensor, t: Tensor, prompts: list[str]) -> Tensor:
    labels = torch.tensor([row_number(pipeline, prompt) for prompt in prompts], device=x_t.device)
    output: Tensor = pipeline.transformer(x_t, timestep=t, class_labels=labels).sample[:, : x_t.shape[1]]
    return output
