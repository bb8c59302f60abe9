"""Prompts as the pipelines encode them, fixed and searched."""

import logging
from typing import Any

import pytest
import torch
from torch import Generator

from invmm_eval.errors import InvMMError
from invmm_eval.models.generic.backbone import Diffusers
from invmm_eval.testing import tiny
from tests.helpers.families import build

LOADING: dict[str, Any] = {"revision": None, "device": torch.device("cpu"), "dtype": torch.float32, "image_size": 16}
TEXT = "red cat dog"


def test_a_searched_prompt_of_whole_tokens_is_the_text() -> None:
    pipeline = build("chroma")
    condition = Diffusers(pipeline, **LOADING, soft_tokens=3).condition()
    [logits] = condition.parameters().values()
    assert logits.shape == (3, len(pipeline.tokenizer))
    with torch.no_grad():
        logits[range(3), pipeline.tokenizer(TEXT).input_ids[:3]] = 1e4
        context = condition.rsample(2, Generator().manual_seed(0))
        expected, *_ = pipeline.encode_prompt(TEXT, do_classifier_free_guidance=False)
    torch.testing.assert_close(context["prompt-0-0"], expected.expand(2, -1, -1), atol=1e-5, rtol=1e-5)
    assert condition.prompt() == TEXT


@pytest.mark.parametrize("words", [tiny.WORDS, ()], ids=["of one token", "of several tokens"])
def test_no_more_words_are_placed_than_a_tokenizer_takes(
    words: tuple[str, ...], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the pipeline and its tokenizer warn at length that they are cut."""
    for library in ("diffusers", "transformers"):
        monkeypatch.setattr(logging.getLogger(library), "propagate", True)
    pipeline = build("stable-diffusion")
    pipeline.tokenizer = tiny.tiny_clip_tokenizer(words=words)
    pipeline.tokenizer.model_max_length = 26
    pipeline.text_encoder = tiny.tiny_clip_encoder(pipeline.tokenizer)
    condition = Diffusers(pipeline, **LOADING).condition()
    condition.rsample(1, Generator().manual_seed(0))
    [logits] = condition.parameters().values()
    assert len(logits) == 24
    assert caplog.messages == []


def test_a_second_encoder_of_the_same_prompt_cannot_be_searched_around() -> None:
    with pytest.raises(InvMMError, match=r"HunyuanDiTPipeline has no text encoder of its own.*prompt_mode=caption"):
        Diffusers(build("hunyuan"), **LOADING)
