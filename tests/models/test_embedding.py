"""Tokens of textual inversion: prompts with them are encoded as diffusers encodes them, and they are recorded."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Generator, Tensor

from invmm_eval import InvMMError, load_backbone
from invmm_eval.audits.options import Choices, ModelOptions
from invmm_eval.audits.plan import make_plan
from invmm_eval.models.embedding import add_embeddings
from invmm_eval.models.generic.families import StableDiffusionXL
from invmm_eval.models.weight_files import read_files
from invmm_eval.testing import tiny

CAPTION = "a photo of <sks> with a cat"
CPU = torch.device("cpu")


def vectors(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, tiny.WIDTH, generator=Generator().manual_seed(seed))


def saved(folder: Path, name: str, **tensors: Tensor) -> Path:
    save_file(tensors, folder / name)
    return folder / name


def named(text: str) -> list[tuple[Path, str]]:
    return list(read_files(text, "embedding"))


def encoded(pipeline: Any, caption: str) -> Tensor:
    """By the pipeline alone."""
    with torch.no_grad():
        hidden: Tensor = pipeline.encode_prompt([caption], CPU, 1, False)[0]
    return hidden


@pytest.mark.parametrize("count", [1, 3])
def test_a_caption_is_encoded_as_the_pipeline_with_the_token_encodes_it(
    count: int, tiny_stable_diffusion_folder: Path, tmp_path: Path
) -> None:
    file = saved(tmp_path, "learned_embeds.safetensors", **{"<sks>": vectors(count)})
    state = torch.get_rng_state()
    backbone = load_backbone(
        tiny_stable_diffusion_folder, embedding=str(file), backbone_options={"prompt_mode": "caption"}
    )
    assert torch.equal(torch.get_rng_state(), state)
    pipeline = tiny.tiny_stable_diffusion()
    without = encoded(pipeline, CAPTION)
    pipeline.load_textual_inversion(str(file))
    expected = encoded(pipeline, CAPTION)
    [found] = backbone.condition(CAPTION).rsample(1, Generator()).values()
    assert torch.equal(found, expected)
    assert not torch.equal(found, without)


@pytest.mark.parametrize(
    ("name", "key", "text", "token"),
    [
        ("a.safetensors", "<sks>", "{}", "<sks>"),
        ("a.safetensors", "<sks>", "{}:<mine>", "<mine>"),
        ("my-style.safetensors", "emb_params", "{}", "my-style"),
        ("my-style.safetensors", "emb_params", "{}:<mine>", "<mine>"),
    ],
)
def test_the_token_is_the_given_one_or_that_of_the_file(
    name: str, key: str, text: str, token: str, tmp_path: Path
) -> None:
    pipeline = tiny.tiny_stable_diffusion()
    add_embeddings(pipeline, named(text.format(saved(tmp_path, name, **{key: vectors(1)}))))
    assert list(pipeline.tokenizer.get_added_vocab()) == [*tiny.tiny_clip_tokenizer().get_added_vocab(), token]
    added = pipeline.text_encoder.get_input_embeddings().weight[pipeline.tokenizer.convert_tokens_to_ids(token)]
    assert torch.equal(added, vectors(1)[0])


def test_a_file_for_two_text_encoders_gives_each_its_own_and_the_prompt_is_searched_over_both(tmp_path: Path) -> None:
    given = {"clip_l": vectors(2), "clip_g": vectors(2, seed=1)}
    pipeline = tiny.tiny_sdxl()
    add_embeddings(pipeline, named(f"{saved(tmp_path, 'sdxl.safetensors', **given)}:<sks>"))
    for number, tensor in (("", given["clip_l"]), ("_2", given["clip_g"])):
        encoder, tokenizer = getattr(pipeline, f"text_encoder{number}"), getattr(pipeline, f"tokenizer{number}")
        ids = tokenizer.convert_tokens_to_ids(["<sks>", "<sks>_1"])
        assert torch.equal(encoder.get_input_embeddings().weight[ids], tensor)
    how: dict[str, Any] = {"revision": None, "device": CPU, "dtype": torch.float32}
    logits = StableDiffusionXL(pipeline, **how).condition().parameters()["logits"]
    assert logits.shape[1] == len(pipeline.tokenizer)
    one = tiny.tiny_sdxl()
    add_embeddings(one, named(str(saved(tmp_path, "one.safetensors", **{"<sks>": vectors(1)}))))
    assert StableDiffusionXL(one, **how).condition().parameters()["logits"].shape[1] == len(one.tokenizer_2)


def test_the_config_has_the_digest_and_the_token(tiny_stable_diffusion_folder: Path, tmp_path: Path) -> None:
    file = saved(tmp_path, "a.safetensors", **{"<sks>": vectors(1)})
    model = ModelOptions(source=tiny_stable_diffusion_folder, embedding=f"{file}:<mine>")
    config = make_plan(model, Choices(similarity="pixel-cosine")).config
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert config["embeddings"] == [{"file": file.name, "sha256": digest, "token": "<mine>"}]


def test_what_is_no_embedding_of_the_model_is_told(tiny_stable_diffusion_folder: Path, tmp_path: Path) -> None:
    wide = saved(tmp_path, "wide.safetensors", **{"<sks>": torch.zeros(1, 7)})
    known = saved(tmp_path, "known.safetensors", **{"cat</w>": vectors(1)})
    second = saved(tmp_path, "second.safetensors", clip_g=vectors(1))
    (tmp_path / "learned_embeds.bin").touch()
    (tmp_path / "damaged.safetensors").write_bytes(b"no weights")
    for file, sentence in (
        (tmp_path / "learned_embeds.bin", "embedding .*bin is no .safetensors file; others are never loaded"),
        (tmp_path / "absent.safetensors", "There is no embedding"),
        (tmp_path / "damaged.safetensors", "damaged.safetensors does not fit"),
        (wide, r"<sks> has the shape \(1, 7\), and its tokens have 16 numbers"),
        (known, "Token cat</w> already in tokenizer vocabulary"),
        (second, "clip_g has .* no such text encoder"),
        (f"{known}:<sks>,{wide}:<sks>", "wide.safetensors does not fit"),
    ):
        with pytest.raises(InvMMError, match=sentence):
            load_backbone(tiny_stable_diffusion_folder, embedding=str(file))
    with pytest.raises(InvMMError, match="diffusers has no textual inversion for a PixArtAlphaPipeline"):
        add_embeddings(tiny.tiny_pixart(), named(str(known)))
