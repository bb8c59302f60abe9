"""Prompt modes, and the prompts of those that search none."""

import pytest

from invmm_eval.errors import InvMMError
from invmm_eval.models.text import PROMPT_MODES, check_prompt_mode, fixed_text


def test_only_prompt_modes_that_there_are_pass() -> None:
    assert [check_prompt_mode(mode) for mode in PROMPT_MODES] == list(PROMPT_MODES)
    with pytest.raises(InvMMError, match="no prompt_mode 'hard'; choose one of soft, caption, empty"):
        check_prompt_mode("hard")


def test_a_caption_is_the_prompt_where_it_is_asked_for() -> None:
    assert fixed_text("caption", "a cat") == "a cat"
    assert fixed_text("empty", "a cat") == ""
    with pytest.raises(InvMMError, match="needs a caption for each image"):
        fixed_text("caption", None)
