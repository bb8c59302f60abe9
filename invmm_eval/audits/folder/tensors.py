"""Results from rows, with tensors that are read when they are looked at."""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from invmm_eval.audits.folder.files import picture_of, stem, tensors_of
from invmm_eval.errors import InvMMError, on_disk
from invmm_eval.search.late import Late
from invmm_eval.search.records import saved_record
from invmm_eval.search.result import Result
from invmm_eval.search.sheet import cut, opened, strip
from invmm_eval.search.target import Target


def result_of(folder: Path, row: Mapping[str, Any]) -> Result:
    """The result of a row; its tensors are read, and compared with their SHA-256, when they are first looked at.

    What the row leaves out is read from the header of their file, without the tensors. The row's ``sha256`` may be a
    future, which is done when they are written; None if they are not kept.
    """
    if not row["sha256"]:
        return Result.from_record(row)
    path = tensors_of(folder, stem(row["digest"], row["caption"]))
    whole = Late(_record_in, path, row["digest"])
    return Result.from_record(row, Late(_tensors_in, path, row["sha256"]), whole, picture_of(folder, row))


def _record_in(path: Path, digest: str) -> dict[str, Any]:
    with on_disk(f"{path} cannot be read"):
        if not path.exists():
            return {}
        path.open("rb").close()  # safetensors says of a file that may not be read that there is none
    try:
        record = saved_record(path)
        if record["digest"] == digest:
            return record
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        pass
    raise InvMMError(f"{path} is not what the audit wrote; remove it, and the same command measures its image again.")


def require_files(folder: Path, row: Mapping[str, Any]) -> None:
    """The files of a row are what a run wrote.

    Raises:
        InvMMError: A file cannot be read, the tensors have another SHA-256, or the picture is missing or does not show
            the row's image and its samples.
    """
    found = result_of(folder, row)
    if not found.check or not row["sha256"]:
        return
    len(found.noise)
    path = picture_of(folder, row)
    sheet = opened(path)
    if sheet is None:
        raise InvMMError(f"{path} is missing; the same command measures its image again.")
    samples = {scale: found.check.samples[scale] for scale in found.check.similarities}  # safetensors keeps no order
    channels, height, width = next(iter(samples.values())).shape[1:]
    first = cut(sheet, (channels, height, width), 0, 0)
    image = torch.from_numpy(np.array(first)).reshape(height, width, -1).permute(2, 0, 1).contiguous()
    if Target(image).digest != row["digest"] or strip(image, samples).tobytes() != sheet.tobytes():
        raise InvMMError(
            f"{path} is not what the audit wrote; remove it, and the same command measures its image again."
        )


def _tensors_in(path: Path, expected: str) -> dict[str, Tensor]:
    """The tensors of a file, compared with its SHA-256."""
    with on_disk(f"{path} cannot be read", ". Remove it, and the same command measures its image again."):
        contents = path.read_bytes()
    if sha256(contents).hexdigest() != expected:
        raise InvMMError(
            f"{path} is not what the audit wrote: its SHA-256 differs. Remove it, and the same command measures its "
            "image again."
        )
    return dict(load(contents))
