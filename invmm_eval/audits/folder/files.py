"""Names, locks and atomic writes of the files in an audit's folder."""

import errno
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout, has_fcntl

from invmm_eval import strict_json
from invmm_eval.errors import InvMMError

STEM = 16
"""Digits of a picture's digest in the names of its files."""
_NO_FLOCK = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


def stem(digest: str, caption: str | None) -> str:
    """What a picture's files are called; pictures with the same pixels and caption share them."""
    return digest[:STEM] if caption is None else f"{digest[:STEM]}-{sha256(caption.encode()).hexdigest()[:8]}"


def tensors_of(folder: Path, name: str) -> Path:
    """The file of tensors of a picture, by its :func:`stem`."""
    return folder / "tensors" / name[:2] / f"{name}.safetensors"


def picture_of(folder: Path, row: Mapping[str, Any]) -> Path:
    """The PNG of a row's image and its samples."""
    name = stem(row["digest"], row["caption"])
    return folder / "samples" / name[:2] / f"{name}.png"


def folder_named(name: object) -> Path:
    """The folder of an audit, which may not exist yet.

    Raises:
        InvMMError: It is no path of a folder.
    """
    if not isinstance(name, str | os.PathLike) or not str(name) or "\0" in str(name):
        raise InvMMError(f"The folder of an audit is {name!r}; give the path of a folder.")
    return Path(name)


def lock_of(folder: Path) -> BaseFileLock:
    """The lock that a run holds while it writes to a folder: a file that names its process where flock is missing."""
    if _has_flock(folder):
        return FileLock(folder / ".lock", thread_local=False)
    return SoftFileLock(folder / ".lock-holder", thread_local=False)


@contextmanager
def opened_alone(folder: Path, lock: BaseFileLock) -> Iterator[None]:
    """Create a folder and take its lock for what is done inside; where that raises, the lock is released.

    Args:
        folder: Created if it does not exist.
        lock: Its :func:`lock_of`.

    Raises:
        InvMMError: Another run holds the lock, or the folder cannot be used.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=1)
        yield
    except BaseException as error:
        lock.release()
        if isinstance(error, Timeout):
            raise InvMMError(
                f"Another run is writing to {folder}; wait for its end, or choose another folder."
            ) from error
        if isinstance(error, OSError):
            raise InvMMError(f"The folder {folder} cannot be used: {error.strerror or error}.") from error
        raise


def _has_flock(folder: Path) -> bool:
    """Whether the file system of a folder, which may not exist yet, has flock; some of networks and clusters do not."""
    if not has_fcntl:
        return True
    import fcntl

    place = next(path for path in (folder, *folder.absolute().parents) if os.path.exists(path))  # noqa: PTH110
    try:
        descriptor = os.open(place, os.O_RDONLY)
    except OSError:  # whoever writes there tells what is wrong
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _NO_FLOCK
    finally:
        os.close(descriptor)
    return True


def in_use(folder: Path) -> bool:
    """Whether a run is writing to a folder now."""
    try:
        lock = lock_of(folder)
        if Path(lock.lock_file).exists():
            lock.acquire(timeout=0).lock.release()
        return False
    except Timeout:
        return True
    except OSError:  # the folder is read-only, so no run can write to it
        return False


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file, without the checksum that :func:`write_object` adds; earlier versions added none.

    Raises:
        InvMMError: The file is damaged.
        OSError: The file cannot be read.
    """
    try:
        return strict_json.unsealed(strict_json.read_object(path))
    except ValueError as error:
        raise damaged(path) from error


def write_object(path: Path, record: Mapping[str, Any], indent: int | None = None) -> None:
    """Write a JSON object and its checksum, atomically."""
    text = json.dumps(strict_json.sealed(record), indent=indent, allow_nan=False) + "\n"
    write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def damaged(path: Path) -> InvMMError:
    """What is said of a file that is not what a run writes, and the way out."""
    if path.name == "config.json":
        return InvMMError(f"{path} is damaged, so its audit cannot be resumed or read; choose another folder.")
    return InvMMError(f"{path} is damaged; remove it, and the next run writes it again.")


def write_atomically(path: Path, write: Callable[[Path], object]) -> str:
    """Write all of a file or nothing, flushed to the disk, whenever this is interrupted.

    Args:
        path: The file.
        write: Writes the contents to the path it receives.

    Returns:
        The SHA-256 of the contents, in hex.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        write(partial)
        with partial.open("rb+") as file:
            digest = file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return digest


def write_to(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file that a user named as :func:`write_atomically` does, but a pipe or device in place."""
    if path.exists() and not path.is_file():
        write(path)
    else:
        write_atomically(path.resolve(), write)
