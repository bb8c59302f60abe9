"""Messages of libraries that mislead those who read them, and progress bars that fill log files."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging


@contextmanager
def unlogged(logger: str, start: str) -> Iterator[None]:
    """A context in which a logger leaves out the messages that start so."""
    log = logging.getLogger(logger)

    def passes(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(start)

    log.addFilter(passes)
    try:
        yield
    finally:
        log.removeFilter(passes)


@contextmanager
def without_bars() -> Iterator[None]:
    """A context in which diffusers and transformers draw no progress bars; their own setting holds again after it."""
    shown = diffusers_logging.is_progress_bar_enabled()
    diffusers_logging.disable_progress_bar()
    hook = transformers_logging.set_tqdm_hook(_undrawn)
    try:
        yield
    finally:
        transformers_logging.set_tqdm_hook(hook)
        if shown:
            diffusers_logging.enable_progress_bar()


def _undrawn(bar: Any, arguments: Any, options: Any) -> Any:
    return bar(*arguments, **{**options, "disable": True})
