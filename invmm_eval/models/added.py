"""Files of weights that are added to a model: which they are, and what identifies them."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from invmm_eval.errors import InvMMError


def read_files(text: str | None, kind: str) -> Iterator[tuple[Path, str]]:
    """Read ``FILE[:VALUE]``, several separated by commas: each file with the text after the colon, or none.

    A folder stands for its only ``.safetensors`` file.

    Args:
        text: What the user named.
        kind: What messages call it.

    Raises:
        InvMMError: There is no such file, or it is no safetensors file.
    """
    for part in filter(None, map(str.strip, (text or "").split(","))):
        name, colon, value = part.rpartition(":")
        file, value = (Path(name), value) if colon and not Path(part).exists() else (Path(part), "")
        if file.is_dir():
            found = sorted(file.glob("*.safetensors"))
            if len(found) != 1:
                raise InvMMError(f"The folder {file} has {len(found)} .safetensors files; name the {kind} itself.")
            [file] = found
        if file.suffix != ".safetensors":
            raise InvMMError(f"The {kind} {file} is no .safetensors file; others are never loaded.")
        if not file.is_file():
            raise InvMMError(f"There is no {kind} {file}.")
        yield file, value


def sha256(file: Path) -> str:
    """The SHA-256 of a file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
