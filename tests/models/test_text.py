"""Mixtures of tokens, held against the encoders' own reading of the tokens."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from invmm_eval.errors import InvMMError
from invmm_eval.models.text import PROMPT_MODES, SoftTextEncoder, check_prompt_mode
from invmm_eval.testing import tiny


def openai() -> tuple[Any, Any]:
    tokenizer = tiny.tiny_clip_tokenizer()
    return tiny.tiny_clip_encoder(tokenizer), tokenizer


def openclip() -> tuple[Any, Any]:
    """Padded with zeros, with a projection of its pooled output."""
    tokenizer = tiny.tiny_clip_tokenizer("!")
    return tiny.tiny_clip_encoder(tokenizer, projection=True, hidden_act="gelu"), tokenizer


def old_openclip() -> tuple[Any, Any]:
    """The end mark in its config is 2, as in old ones: it is then found as the largest of the ids."""
    encoder, tokenizer = openclip()
    encoder.config.eos_token_id = encoder.text_model.eos_token_id = 2
    return encoder, tokenizer


def t5() -> tuple[Any, Any]:
    tokenizer = tiny.tiny_t5_tokenizer()
    return tiny.tiny_t5_encoder(tokenizer), tokenizer


class Kit(NamedTuple):
    make: Callable[[], tuple[Any, Any]]
    encoder: Any
    tokenizer: Any
    soft: SoftTextEncoder


@pytest.fixture(params=[openai, openclip, old_openclip, t5])
def kit(request: pytest.FixtureRequest) -> Kit:
    encoder, tokenizer = request.param()
    return Kit(request.param, encoder, tokenizer, SoftTextEncoder(encoder, tokenizer))


def tokens(encoder: SoftTextEncoder, n: int = 2) -> Tensor:
    """Random ids of letters, ``(n, L)``."""
    return torch.randint(3, 20, (n, encoder.length), generator=torch.Generator().manual_seed(0))


def one_hot(ids: Tensor, vocabulary: int) -> Tensor:
    return nn.functional.one_hot(ids, vocabulary).float()


def marked(ids: Tensor, tokenizer: Any) -> Tensor:
    """The ids between the marks that the tokenizer knows."""
    marks = [ids.new_full((len(ids), 1), mark) for mark in (tokenizer.bos_token_id, tokenizer.eos_token_id) if mark]
    return torch.cat([*marks[:-1], ids, marks[-1]], dim=1)


def test_one_hot_mixtures_are_encoded_as_the_tokens(kit: Kit) -> None:
    _, encoder, tokenizer, soft = kit
    ids = tokens(soft)
    with torch.no_grad():
        found = soft(one_hot(ids, soft.vocabulary), output_hidden_states=True)
        expected = encoder(marked(ids, tokenizer), output_hidden_states=True)
    assert found.keys() == expected.keys()
    assert len(found.hidden_states) == len(expected.hidden_states) == 3
    for one, other in zip(found.hidden_states, expected.hidden_states, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.last_hidden_state, expected.last_hidden_state, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kit", [openai, openclip, old_openclip], indirect=True)
def test_the_pooled_output_is_read_off_at_the_end_mark(kit: Kit) -> None:
    make, encoder, tokenizer, soft = kit
    ids = tokens(soft)
    name = "text_embeds" if make is not openai else "pooler_output"
    with torch.no_grad():
        found, expected = soft(one_hot(ids, soft.vocabulary))[name], encoder(marked(ids, tokenizer))[name]
    assert found.shape == (2, tiny.WIDTH)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_a_prompt_fills_the_places_between_the_marks(kit: Kit) -> None:
    make, encoder, tokenizer, soft = kit
    marks = 1 if make is t5 else 2
    assert soft.length == tokenizer.model_max_length - marks
    assert soft.vocabulary == len(tokenizer)
    assert soft.device == torch.device("cpu")
    short = SoftTextEncoder(encoder, tokenizer, places=10)
    assert short.length == 10 - marks
    assert short(one_hot(tokens(short), short.vocabulary)).last_hidden_state.shape == (2, 10, tiny.WIDTH)


def test_a_mixture_mixes_embeddings_not_encodings(kit: Kit) -> None:
    """Half of two tokens is what a table with one more row, their mean, gives."""
    _, encoder, tokenizer, soft = kit
    ids = tokens(soft, n=1)
    weights = one_hot(ids, soft.vocabulary)
    weights[0, 0] = 0
    weights[0, 0, [5, 6]] = 0.5
    table = encoder.get_input_embeddings().weight
    with torch.no_grad():
        found = soft(weights).last_hidden_state
        table[30] = (table[5] + table[6]) / 2
        ids[0, 0] = 30
        expected = encoder(marked(ids, tokenizer)).last_hidden_state
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_the_gradient_reaches_every_place_and_no_weight(kit: Kit) -> None:
    _, encoder, _, soft = kit
    logits = torch.zeros(2, soft.length, soft.vocabulary, requires_grad=True)
    hidden = soft(logits.softmax(dim=-1)).last_hidden_state
    hidden.square().sum().backward()
    assert logits.grad is not None
    assert (logits.grad.abs().amax(dim=-1) > 0).all()
    assert all(parameter.grad is None for parameter in encoder.parameters())


def test_the_encoder_stays_as_it_is(kit: Kit) -> None:
    _, encoder, tokenizer, _ = kit
    encoder.train()
    table = encoder.get_input_embeddings()
    soft = SoftTextEncoder(encoder, tokenizer)
    soft(one_hot(tokens(soft), soft.vocabulary))
    assert encoder.get_input_embeddings() is table
    assert isinstance(table, nn.Embedding)
    assert encoder.training
    assert all(parameter.requires_grad for parameter in encoder.parameters())
    assert encoder(marked(tokens(soft), tokenizer)).last_hidden_state.shape == (2, tokenizer.model_max_length, 16)


def test_an_encoder_in_half_precision_takes_mixtures_in_float32() -> None:
    encoder, tokenizer = openai()
    soft = SoftTextEncoder(encoder.to(torch.bfloat16), tokenizer)
    assert soft(one_hot(tokens(soft), soft.vocabulary)).last_hidden_state.dtype == torch.bfloat16


def test_the_likeliest_tokens_are_read(kit: Kit) -> None:
    _, _, tokenizer, soft = kit
    ids = tokenizer("a red cat with the heart").input_ids
    ids = torch.tensor([each for each in ids if each not in (tokenizer.bos_token_id, tokenizer.eos_token_id)])
    assert soft.read(torch.randn(len(ids), soft.vocabulary) + 100 * one_hot(ids, soft.vocabulary)).strip() == (
        "a red cat with the heart"
    )


def test_only_prompt_modes_that_there_are_pass() -> None:
    assert [check_prompt_mode(mode) for mode in PROMPT_MODES] == list(PROMPT_MODES)
    with pytest.raises(InvMMError, match="no prompt_mode 'hard'; choose one of soft, caption, empty"):
        check_prompt_mode("hard")
