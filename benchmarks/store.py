"""The time that the status, the table and the page of a very large audit take, and the time to list and resume it.

    python benchmarks/store.py                    # a million rows, about 0.7 GB in a temporary folder
    python benchmarks/store.py --rows 10000 --json store.json

The rows are those of images that were not replicated by the recipe fast. The images are empty files in folders of a
thousand. They are listed, and the folder is opened, as a run that resumes does before it reads the first image. Files
of tensors and pictures are left out: of all that is measured only the page reads them, for at most a thousand images.
Each command runs in its own process: wall-clock seconds, CPU seconds, and peak memory in GiB, of which the libraries
alone take up to half a GiB.
"""

import json
import multiprocessing
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.common.script import parser, show, write
from invmm_eval.audits.folder import read
from invmm_eval.audits.folder.format import FORMAT
from invmm_eval.audits.folder.requested import Requested
from invmm_eval.audits.folder.rows import line_of
from invmm_eval.audits.folder.writing import Store
from invmm_eval.audits.images import find_images
from invmm_eval.recipe import DDPM, fast
from invmm_eval.reports import report
from invmm_eval.search.result import PLAIN_SHARE, Check, Judged, Result, Status

CONFIG: dict[str, Any] = {
    "model": "model",
    "weights": "5" * 64,
    "backbone": {"name": "ddpm", "image_shape": [3, 32, 32]},
    "similarity": {"name": "pixel-cosine", "threshold": 0.5},
    "noise": {"name": "diagonal-gaussian"},
    "recipe": asdict(fast(DDPM)),
    "seed": 0,
    "versions": {"invmm-eval": version("invmm-eval")},
}


IMAGES = "images"


def simulate(folder: Path, rows: int) -> float:
    """Write the rows and the images of an audit that has ended; returns bytes per row."""
    for index in range(rows):
        image = folder / IMAGES / name(index)
        if index % 1000 == 0:
            image.parent.mkdir(parents=True)
        image.touch()
    with Store(folder, CONFIG, Requested.now([name(index) for index in range(rows)])):
        pass
    check = Check(passed=False, similarities={1.0: (0.1234567891,) * 8}, samples={}, judged_by=Judged.GREATEST)
    share: dict[str, Any] = {"share": 0.0, "low": 0.0, "high": 0.007178950026259453, "copies": 0, "samples": 544}
    share |= {"plain_copies": 0, "plain_samples": 512, "plain_guidance": 0.0, "relative_error": None}
    result = Result(0, "", "", Status.EXHAUSTED, 0.010172528214752674, 3072, 4, check, rows=192, picture_bits=16760)
    result = replace(result, estimates={PLAIN_SHARE: share}, seconds_checks=21.317)
    row = {**result.row(), "sha256": "0" * 64, "finished": "2026-01-01T00:00:00.000+00:00", "format": FORMAT}
    with (folder / "results.jsonl").open("wb") as lines:
        for index in range(rows):
            digest = sha256(str(index).encode()).hexdigest()
            lines.write(line_of({**row, "index": index, "name": name(index), "digest": digest}))
    return (folder / "results.jsonl").stat().st_size / rows


def name(index: int) -> str:
    return f"{index // 1000:04d}/{index:07d}.png"


def status(folder: Path) -> None:
    rows = json.loads((folder / "images.json").read_text())["names"]
    assert read(folder).progress.done == len(rows)


def resume(folder: Path) -> None:
    images = Requested.now([source.name for source in find_images(folder / IMAGES)])
    with Store(folder, CONFIG, images) as store:
        assert store.result(len(images.names) - 1).status is Status.EXHAUSTED


def table(folder: Path) -> None:
    report(folder, format="csv")


def page(folder: Path) -> None:
    report(folder)


def timed(work: Callable[[Path], None], folder: Path) -> dict[str, float]:
    started, used = time.perf_counter(), time.process_time()
    work(folder)
    return {
        "seconds": time.perf_counter() - started,
        "CPU seconds": time.process_time() - used,
        "GiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def measure(rows: int) -> dict[str, float]:
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        figures: dict[str, float] = {"rows": rows, "bytes a line": simulate(folder, rows)}
        for work in (status, resume, table, page):
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                took = pool.submit(timed, work, folder).result()
            figures |= {f"{work.__name__}, {what}": value for what, value in took.items()}
    return figures


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--rows", type=int, default=1_000_000)
    options = arguments.parse_args()
    figures = measure(options.rows)
    rows = ((what, f"{value:,.2f}" if isinstance(value, float) else f"{value:,}") for what, value in figures.items())
    show(("figure", "value"), rows)
    write(options.json, figures)


if __name__ == "__main__":
    main()
