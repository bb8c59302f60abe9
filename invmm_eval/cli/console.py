"""The terminal: where tables and messages go."""

from typing import Any

from rich.console import Console
from rich.text import Text

out = Console()
err = Console(stderr=True)


def say(message: object, console: Console = out, **style: Any) -> None:
    """Print a message: on a terminal in lines that break between words, elsewhere in one line."""
    console.print(Text(str(message), **style), soft_wrap=not console.is_terminal)


def print_error(message: object) -> None:
    """Print an error on stderr."""
    err.print(Text.assemble(("error ", "red"), str(message)), soft_wrap=not err.is_terminal)


def hide_library_bars() -> None:
    """Hide the progress bars and warnings of diffusers and transformers, which appear even without a terminal."""
    from diffusers.utils.logging import disable_progress_bar
    from transformers.utils import logging

    disable_progress_bar()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
