"""The terminal: where tables and messages go."""

from rich.console import Console
from rich.text import Text

out = Console()
err = Console(stderr=True)


def print_error(message: object) -> None:
    """Print an error on stderr, in one line."""
    err.print("[red]error[/]", Text(str(message)), soft_wrap=True)


def hide_library_bars() -> None:
    """Hide the progress bars and warnings of diffusers and transformers, which appear even without a terminal."""
    from diffusers.utils.logging import disable_progress_bar
    from transformers.utils import logging

    disable_progress_bar()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
