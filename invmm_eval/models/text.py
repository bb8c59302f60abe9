"""Where a prompt comes from."""

from invmm_eval.errors import InvMMError

PROMPT_MODES = ("soft", "caption", "empty")
"""The prompt is searched, is the image's caption, or is empty."""


def check_prompt_mode(mode: str) -> str:
    """Return a prompt mode unchanged.

    Raises:
        InvMMError: The mode is unknown.
    """
    if mode not in PROMPT_MODES:
        raise InvMMError(f"There is no prompt_mode {mode!r}; choose one of {', '.join(PROMPT_MODES)}.")
    return mode


def fixed_text(mode: str, caption: str | None) -> str:
    """The prompt in a mode that does not search it.

    Raises:
        InvMMError: The mode is ``caption`` and there is no caption.
    """
    if mode == "empty":
        return ""
    if caption is None:
        raise InvMMError("prompt_mode=caption needs a caption for each image; pass them with captions= or --captions.")
    return caption
