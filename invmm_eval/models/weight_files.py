"""Files of weights that are added to a model: which they are, and what identifies them."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from huggingface_hub import HfApi, hf_hub_download

from invmm_eval.errors import InvMMError
from invmm_eval.models.pipelines import first_line

_AT_TOP = re.compile(r"[^/]+\.safetensors")
_REPOSITORY = r"[\w-][\w.-]*/[\w.-]+(?<!\.safetensors)(?<!\.bin)(?<!\.pt)(/.+\.safetensors)?"
"""A name of a repository, or of a file in one; a file of one folder here is none."""


def read_files(text: str | None, kind: str) -> Iterator[tuple[Path, str]]:
    """Read ``FILE[:VALUE]``, several separated by commas: each file with the text after the colon, or none.

    A folder stands for its only ``.safetensors`` file, and ``ORG/NAME`` for that of a repository of the Hub, of which
    ``ORG/NAME/FILE`` names another one.

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
            file = file / _only([found.name for found in file.glob("*.safetensors")], file, kind)
        elif not file.exists() and re.fullmatch(_REPOSITORY, str(file)):
            file = _downloaded(str(file), kind)
        if file.suffix != ".safetensors":
            raise InvMMError(f"The {kind} {file} is no .safetensors file; others are never loaded.")
        if not file.is_file():
            raise InvMMError(f"There is no {kind} {file}.")
        yield file, value


def _downloaded(name: str, kind: str) -> Path:
    owner, repository, *path = name.split("/")
    model = f"{owner}/{repository}"
    try:
        if path:
            return Path(hf_hub_download(model, "/".join(path)))
        files = [file.rfilename for file in HfApi().model_info(model).siblings or ()]
        return Path(hf_hub_download(model, _only([file for file in files if _AT_TOP.fullmatch(file)], model, kind)))
    except (OSError, ValueError) as error:
        raise InvMMError(
            f"The {kind} {name} is not a local file or folder, and the Hub does not provide it ({first_line(error)})."
        ) from error


def _only(files: Sequence[str], where: object, kind: str) -> str:
    if len(files) != 1:
        raise InvMMError(f"{where} has {len(files)} .safetensors files; name the {kind} itself.")
    return files[0]


def sha256(file: Path) -> str:
    """The SHA-256 of a file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
