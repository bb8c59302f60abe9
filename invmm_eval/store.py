"""The folder of one audit: what was asked, what was found, and enough to go on after an interruption.

config.json      all that decides the results; a folder with another one is refused
results.jsonl    one line an image, written as it finishes
tensors/         a safetensors file an image: q, the condition and the samples (``Result.load`` reads it)
samples/         a picture an image: the image itself, then its samples, one row a guidance scale
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
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
        InvMMError: The folder cannot be written, or holds an audit with another config.
    """

    def __init__(self, folder: str | Path, config: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        try:
            for part in ("tensors", "samples"):
                (self.folder / part).mkdir(parents=True, exist_ok=True)
            self._agree(json.loads(json.dumps(config)))
            self._mend()
        except OSError as error:
            raise InvMMError(f"The folder {self.folder} cannot be used: {error.strerror or error}.") from error

    def _agree(self, config: dict[str, Any]) -> None:
        path = self.folder / "config.json"
        if not path.exists():
            whole = path.with_suffix(".partial")
            whole.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
            whole.replace(path)
            return
        there = json.loads(path.read_text(encoding="utf-8"))
        if differing := sorted(key for key in there.keys() | config.keys() if there.get(key) != config.get(key)):
            raise InvMMError(
                f"{self.folder} holds an audit with another {', '.join(differing)}; name another folder, "
                "or ask for what was asked there."
            )

    @property
    def _lines(self) -> Path:
        return self.folder / "results.jsonl"

    def _mend(self) -> None:
        """Cut off a last line that an interruption left unfinished."""
        if self._lines.exists():
            whole, newline, torn = self._lines.read_bytes().rpartition(b"\n")
            if torn:
                os.truncate(self._lines, len(whole + newline))

    def finished(self) -> dict[tuple[int, str], Path]:
        """Where the result of each finished image lies, by index and digest; failed ones are not among them."""
        if not self._lines.exists():
            return {}
        rows = (json.loads(line) for line in self._lines.read_text(encoding="utf-8").splitlines())
        return {
            (row["index"], row["digest"]): self._tensors(row["digest"])
            for row in rows
            if row["status"] != Status.FAILED
        }

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
        except OSError as error:
            raise InvMMError(
                f"A result could not be written to {self.folder}: {error.strerror or error}. What was written before "
                "is kept; run the same command again to go on."
            ) from error


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
