"""``manifest.json``: what an audit was made of, and the SHA-256 of its files, to verify and to sign.

It is written whenever a run ends. The rows hold the SHA-256 of all tensors, which hold the samples, and that of each
image's pixels; so the SHA-256 of ``results.jsonl`` stands for tensors and pictures too.
"""

import platform
from datetime import UTC, datetime
from hashlib import file_digest
from pathlib import Path

from invmm_eval.audits.folder.files import damaged, folder_named, in_use, read_object, write_object
from invmm_eval.audits.folder.reading import read, read_request
from invmm_eval.audits.request import command
from invmm_eval.errors import InvMMError

FILE = "manifest.json"
FORMAT = 1
_FILES = ("config.json", "request.json", "images.json", "results.jsonl", "screening.jsonl", "whole.json")
_INPUTS = ("model", "weights", "loras", "embeddings", "similarity", "calibration")
"""The parts of a config that identify what an audit was made of, besides the images."""


def write_manifest(folder: Path) -> None:
    """Write the manifest of an audit that nobody else writes to.

    Raises:
        InvMMError: A file is damaged.
        OSError: A file cannot be read or written.
    """
    config = read_object(folder / "config.json")
    request = read_request(folder)
    manifest = {
        "format": FORMAT,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command(request) if request else None,
        "versions": {"python": platform.python_version(), **config.get("versions", {})},
        "inputs": {name: config[name] for name in _INPUTS if name in config},
        "files": {name: sha256_of(folder / name) for name in _FILES if (folder / name).exists()},
    }
    write_object(folder / FILE, manifest, indent=2)


def verify(folder: str | Path) -> list[str]:
    """Read every file of an audit, and compare it with what the run wrote.

    Args:
        folder: The folder.

    Returns:
        A sentence for each damage: the file, what is wrong with it and what to do.

    Raises:
        InvMMError: There is no audit in the folder, a run is writing to it, or ``folder`` is no path.
    """
    folder = folder_named(folder)
    path = folder / FILE
    if in_use(folder):
        raise InvMMError(f"A run is writing to {folder}; verify it when it has ended.")
    try:
        found = list(read(folder).damaged())
    except InvMMError as error:
        if not path.exists():
            raise
        found = [str(error)]
    if not path.exists():
        return [*found, f"{path} is missing, as if the run had not ended; run the same command again to write it."]
    try:
        expected = _files_of(path)
        reported = "".join(found)
        for file in (folder / name for name in _FILES if str(folder / name) not in reported):
            if (sha256_of(file) if file.exists() else None) != expected.get(file.name):
                found.append(
                    f"{file} is not what the run wrote: its SHA-256 is not that in {path.name}. Restore it from a "
                    "copy, or run the same command again to write both."
                )
    except InvMMError as error:
        found.append(str(error))
    except OSError as error:
        raise InvMMError(f"{folder} cannot be read: {error.filename}: {error.strerror}.") from error
    return found


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _files_of(path: Path) -> dict[str, str]:
    """The SHA-256 by name of the files that a manifest lists."""
    manifest = read_object(path)
    number, files = manifest.get("format"), manifest.get("files")
    if isinstance(number, int) and number > FORMAT:
        raise InvMMError(f"{path} has format {number}; this version reads {FORMAT}. Upgrade invmm-eval.")
    if number != FORMAT or not isinstance(files, dict):
        raise damaged(path)
    return files
