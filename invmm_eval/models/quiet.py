"""Messages of libraries that mislead those who read them."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


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
