"""The exception for mistakes of users, and errors of the disk as such."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches


class InvMMError(Exception):
    """A mistake in the input or the environment. Its message is one sentence: what is wrong and what to do."""


def did_you_mean(name: str, names: Iterable[str], most: int = 1, within: str = "") -> str:
    """What follows a name that does not exist: up to ``most`` similar ones, after ``within``; empty without any."""
    close = " or ".join(repr(within + match) for match in get_close_matches(name, list(names), n=most))
    return f" (did you mean {close}?)" if close else ""


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
