"""The reference model: a small DDPM of OpenMoji pictures, some of which were repeated in its training set.

Here the truth about memorization is known: how many copies of each picture the training set held, and how often each
came back in plain sampling. ``benchmarks/train_reference.py`` made it; the model's card describes how.

Wherever a model or images are named, ``reference`` stands for this model and for pictures that it was trained on, and
``reference:held-out`` for pictures that it never saw.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from invmm_eval.errors import InvMMError

if TYPE_CHECKING:
    from PIL import Image

_FOLDER = Path(__file__).parent

MODEL = _FOLDER / "model"
"""The folder of the pipeline."""

NAME = "reference"
HELD_OUT = f"{NAME}:held-out"

THRESHOLD = 0.9
"""The pixel-cosine from which on a sample is a copy, by which :attr:`Picture.drawn` was counted."""

MICRO_BATCH = 64
"""A batch size of a network call at which this small model is fast."""

COPIES = (256, 64, 16, 4, 1)
"""The numbers of copies of a picture in the training set, held-out pictures aside."""


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture whose history is known.

    Attributes:
        code: Its code point in hexadecimal.
        name: Its Unicode name.
        copies: How many of it the training set held; 0 where it was held out.
        drawn: How many of :func:`plain_samples` plain samples were copies of it; None if they were not compared.
        image: RGB, 32x32.
    """

    code: str
    name: str
    copies: int
    drawn: int | None
    image: "Image.Image"


def plain_samples() -> int:
    """How many plain samples :attr:`Picture.drawn` was counted in."""
    samples = _truth()["samples"]
    assert isinstance(samples, int)
    return samples


def pictures() -> list[Picture]:
    """All repeated and held-out pictures and some of those seen once, the most repeated first."""
    return _read("images.parquet")


def all_pictures() -> list[Picture]:
    """The whole training set, each picture once, and the held-out ones: those of :func:`pictures`, then the others."""
    return [*pictures(), *_read("others.parquet")]


def _read(file: str) -> list[Picture]:
    import pyarrow.parquet
    from PIL import Image

    drawn = _truth()["copies_drawn"]
    assert isinstance(drawn, dict)
    rows = pyarrow.parquet.read_table(_FOLDER / file).to_pylist()
    return [
        Picture(
            code=row["code"],
            name=row["name"],
            copies=row["copies"],
            drawn=drawn.get(row["code"]),
            image=Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB"),
        )
        for row in rows
    ]


def choose(known: Sequence[Picture], *, each: int = 3, held_out: int = 6) -> list[Picture]:
    """The first pictures of each number of copies, and some that were held out.

    Args:
        known: Pictures to choose from, as :func:`pictures` returns them.
        each: Pictures for each of :data:`COPIES`.
        held_out: Pictures that were held out.
    """
    wanted = dict.fromkeys(COPIES, each) | {0: held_out}
    return [picture for copies, count in wanted.items() for picture in [p for p in known if p.copies == copies][:count]]


def named(name: object) -> list[Picture]:
    """The pictures that a name stands for: those of :func:`choose` that were in the training set, or that were not.

    Args:
        name: ``reference`` or ``reference:held-out``; there are no pictures of any other name.

    Raises:
        InvMMError: There is a file or folder of that name.
    """
    if name not in (NAME, HELD_OUT):
        return []
    _refuse_file(str(name))
    return [picture for picture in choose(pictures()) if (picture.copies == 0) is (name == HELD_OUT)]


def located(model: object) -> object:
    """The folder of the reference model for its name; any other model as it is.

    Raises:
        InvMMError: There is a file or folder of that name.
    """
    if model != NAME:
        return model
    _refuse_file(NAME)
    return MODEL


def name_of(model: str | Path) -> str:
    """The name of a model in records: its path or Hub id, or ``reference``."""
    return NAME if Path(model) == MODEL else str(model)


def _refuse_file(name: str) -> None:
    if Path(name).exists():
        raise InvMMError(
            f"{name!r} names what this package brings, but there is a {name} here too; write ./{name} for that, or run "
            "the command in another folder."
        )


def _truth() -> dict[str, object]:
    truth: dict[str, object] = json.loads((_FOLDER / "truth.json").read_text(encoding="utf-8"))
    return truth
