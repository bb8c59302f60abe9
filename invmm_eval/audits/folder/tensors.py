"""Results from rows, with tensors that are read when they are looked at."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from safetensors.torch import load
from torch import Tensor

from invmm_eval.audits.folder.files import picture_of, stem, tensors_of
from invmm_eval.errors import InvMMError
from invmm_eval.search.result import Result


def result_of(folder: Path, row: Mapping[str, Any]) -> Result:
    """The result of a row; its tensors are read, and compared with their SHA-256, when they are first looked at."""
    path = tensors_of(folder, stem(row["digest"], row["caption"]))
    found = Result.from_record(row, _Saved(path, row["sha256"]) if row["sha256"] else {})
    return replace(found, target=picture_of(folder, row))


class _Saved(Mapping[str, Tensor]):
    """The tensors of a file, read and compared with its SHA-256 when they are first looked at."""

    def __init__(self, path: Path, expected: str) -> None:
        self._path = path
        self._expected = expected

    @cached_property
    def _tensors(self) -> dict[str, Tensor]:
        try:
            contents = self._path.read_bytes()
        except OSError as error:
            raise InvMMError(f"{self._path} cannot be read: {error.strerror}.") from error
        if sha256(contents).hexdigest() != self._expected:
            raise InvMMError(
                f"{self._path} is not what the audit wrote: its SHA-256 differs. Remove it, and the same command "
                "measures its image again."
            )
        return dict(load(contents))

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)
