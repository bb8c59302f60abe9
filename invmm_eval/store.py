"""The folder of one audit: what was asked, what was found, and enough to go on after an interruption.

config.json      all that decides the results; a folder with another one is refused
results.jsonl    one line an image, written as it finishes; failed images are measured again when the audit is gone on
                 with, and their lines are dropped then
tensors/         a safetensors file an image: q, the condition and the samples (``Result.load`` reads it)
samples/         a picture an image: the image itself, then its samples, one row a guidance scale
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor

from invmm_eval.errors import InvMMError
from invmm_eval.images import Target
from invmm_eval.result import Result, Status


class Store:
    """An audit's folder, made or gone on with.

    Args:
        folder: Made where it does not exist.
        config: What decides the results, as JSON can hold it.

    Raises:
        InvMMError: The folder cannot be written, is damaged, or holds an audit with another config; or the config is
            not what JSON can hold.
    """

    def __init__(self, folder: str | Path, config: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        try:
            for part in ("tensors", "samples"):
                (self.folder / part).mkdir(parents=True, exist_ok=True)
            self._agree(_as_json(config))
            self._mend()
        except OSError as error:
            raise InvMMError(f"The folder {self.folder} cannot be used: {error.strerror or error}.") from error

    def _agree(self, config: dict[str, Any]) -> None:
        path = self.folder / "config.json"
        if not path.exists():
            _write(path, json.dumps(config, indent=2) + "\n")
            return
        try:
            there = dict(json.loads(path.read_bytes()))
        except (ValueError, TypeError) as error:
            raise InvMMError(
                f"{path} is damaged, so what was asked there is not known; name another folder."
            ) from error
        if differing := sorted(key for key in there.keys() | config.keys() if there.get(key) != config.get(key)):
            raise InvMMError(
                f"{self.folder} holds an audit with another {', '.join(differing)}; name another folder, "
                "or ask for what was asked there."
            )

    @property
    def _lines(self) -> Path:
        return self.folder / "results.jsonl"

    def _mend(self) -> None:
        """Drop what is measured again: failed images, and a last line that an interruption left unfinished."""
        _write(self._lines, "".join(json.dumps(row) + "\n" for row in self._finished_rows()))

    def finished(self) -> dict[tuple[int, str], Path]:
        """Where the result of each finished image lies, by index and digest; failed ones are not among them."""
        return {(row["index"], row["digest"]): self._tensors(row["digest"]) for row in self._finished_rows()}

    def _finished_rows(self) -> list[dict[str, Any]]:
        return [row for row in _rows(self._lines) if row["status"] != Status.FAILED]

    def _tensors(self, digest: str) -> Path:
        return self.folder / "tensors" / f"{digest[:16]}.safetensors"

    def add(self, result: Result, target: Target | None) -> None:
        """Keep a result; its line is written last, so that a line means that all is there.

        Raises:
            InvMMError: The folder cannot be written.
        """
        try:
            if result.check and target:
                result.save(self._tensors(result.digest))
                strip(target.image, result.check.samples).save(self.folder / "samples" / f"{result.digest[:16]}.png")
            with self._lines.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(result.record()) + "\n")
                lines.flush()
                os.fsync(lines.fileno())
        except (OSError, SafetensorError) as error:
            told = getattr(error, "strerror", None) or error
            raise InvMMError(
                f"A result could not be written to {self.folder}: {told}. What was written before is kept; run the "
                "same command again to go on."
            ) from error


@dataclass(frozen=True)
class Record:
    """What an audit's folder says, read without changing it, also while the audit goes on.

    Attributes:
        folder: The folder.
        config: All that decided the results.
        rows: One mapping an image in the order of the images, as :meth:`Result.record` makes it.
    """

    folder: Path
    config: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]

    def picture(self, row: Mapping[str, Any]) -> Path:
        """The picture of a row's image and its samples, as :func:`strip` made it; failed images have none."""
        return self.folder / "samples" / f"{row['digest'][:16]}.png"


def read(folder: str | Path) -> Record:
    """Read an audit's folder.

    Raises:
        InvMMError: There is no audit in the folder, or it is damaged.
    """
    folder = Path(folder)
    try:
        config = dict(json.loads((folder / "config.json").read_bytes()))
    except OSError as error:
        raise InvMMError(f"{folder} holds no audit: its config.json cannot be read ({error.strerror}).") from error
    except (ValueError, TypeError) as error:
        raise InvMMError(f"{folder / 'config.json'} is damaged, so what was audited is not known.") from error
    return Record(folder, config, sorted(_rows(folder / "results.jsonl"), key=lambda row: row["index"]))


def _rows(path: Path) -> list[dict[str, Any]]:
    """The lines of ``results.jsonl``, but for a last one that is not finished."""
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            Status(row["status"])
            rows.append(row)
        except (ValueError, KeyError, TypeError) as error:
            raise InvMMError(
                f"Line {number} of {path} is damaged; remove it, and its image is measured again."
            ) from error
    return rows


def _as_json(config: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return dict(json.loads(json.dumps(config, allow_nan=False)))
    except (TypeError, ValueError) as error:
        raise InvMMError(
            f"The audit cannot be kept in a folder, since JSON cannot hold its config: {error}."
        ) from error


def _write(path: Path, text: str) -> None:
    """All of it or nothing, whenever this is interrupted."""
    partial = path.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def strip(image: Tensor, samples: Mapping[float, Tensor]) -> Image.Image:
    """The image ``(C, H, W)`` and its samples side by side, one row a guidance scale, two white pixels between."""
    channels, height, width = image.shape
    columns = 1 + max(len(row) for row in samples.values())
    sheet = np.full((len(samples) * (height + 2) - 2, columns * (width + 2) - 2, channels), 255, np.uint8)
    for row, drawn in enumerate(samples.values()):
        for column, picture in enumerate([image, *drawn] if row == 0 else drawn, start=0 if row == 0 else 1):
            top, left = row * (height + 2), column * (width + 2)
            sheet[top : top + height, left : left + width] = picture.permute(1, 2, 0).numpy()
    return Image.fromarray(sheet.squeeze(2) if channels == 1 else sheet)
