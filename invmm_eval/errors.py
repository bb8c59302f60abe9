"""The exception for mistakes of users, and errors of the disk as such."""

from collections.abc import Iterator
from contextlib import contextmanager


class InvMMError(Exception):
    """A mistake in the input or the environment. Its message is one sentence: what is wrong and what to do."""


@contextmanager
def on_disk(failure: str, then: str = ".") -> Iterator[None]:
    """Turn an error of the disk into one sentence: what failed, the reason that the system gives, and what follows.

    Args:
        failure: What could not be done.
        then: What follows the reason.

    Raises:
        InvMMError: A file cannot be read or written.
    """
    try:
        yield
    except OSError as error:
        raise InvMMError(f"{failure}: {error.strerror or error}{then}") from error
