"""The exception for mistakes of users."""


class InvMMError(Exception):
    """A mistake in the input or the environment. Its message is one sentence: what is wrong and what to do."""
