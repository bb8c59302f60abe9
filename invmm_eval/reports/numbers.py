"""Numbers of things in sentences, and where sentences begin."""


def capital(text: str) -> str:
    """The text with a capital letter at its start."""
    return text[:1].upper() + text[1:]


def images(count: int) -> str:
    """``1 image``, or ``2,000 images``."""
    return "1 image" if count == 1 else f"{count:,} images"


def are(count: int) -> str:
    """``is`` or ``are``."""
    return "is" if count == 1 else "are"


def have(count: int) -> str:
    """``has`` or ``have``."""
    return "has" if count == 1 else "have"
