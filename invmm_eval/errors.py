"""The one exception that users are meant to read."""


class InvMMError(Exception):
    """A mistake in the input or the environment, told in one sentence: what is wrong and what to do."""
