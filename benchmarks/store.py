"""The time that the status, the table and the page of a very large audit take, and the time to resume it.

    python benchmarks/store.py                    # a million rows, about 2.5 GB in a temporary folder
    python benchmarks/store.py --rows 10000 --json store.json

The rows are those of images that were not replicated by the published recipe for pixel models, 40 checks each. Files
of tensors and pictures are left out: of all that is measured only the page reads pictures, at most a thousand. Each
command runs in its own process: wall-clock seconds, CPU seconds, and peak memory in GiB, of which the libraries alone
take half a GiB.
"""

import json
import multiprocessing
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
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
from invmm_eval.recipe import DDPM
from invmm_eval.reports import report
from invmm_eval.search.result import Check, Point, Result, Status

CONFIG: dict[str, Any] = {
    "model": "model",
    "weights": "5" * 64,
    "backbone": {"name": "ddpm", "image_shape": [3, 32, 32]},
    "similarity": {"name": "pixel-cosine", "threshold": 0.5},
    "noise": {"name": "diagonal-gaussian"},
    "recipe": asdict(DDPM),
    "seed": 0,
    "versions": {"invmm-eval": version("invmm-eval")},
}


def simulate(folder: Path, rows: int, checks: int = 40) -> float:
    """Write the rows of an audit that has ended; returns bytes per row."""
    with Store(folder, CONFIG, Requested.now([name(index) for index in range(rows)])):
        pass
    check = Check(passed=False, similarities={1.0: tuple(0.1234567 + k / 9 for k in range(8))}, samples={})
    trace = tuple(Point(50 * k, 0.1234567 / k, k / 30, 1 / k, k / 70) for k in range(1, checks + 1))
    result = Result(0, "", "", Status.EXHAUSTED, 1.234567, 3072, 2000, check, trace=trace, rows=137_400)
    row = {**result.record(), "sha256": "0" * 64, "finished": "2026-01-01T00:00:00.000+00:00", "format": FORMAT}
    with (folder / "results.jsonl").open("wb") as lines:
        for index in range(rows):
            digest = sha256(str(index).encode()).hexdigest()
            lines.write(line_of({**row, "index": index, "name": name(index), "digest": digest}))
    return (folder / "results.jsonl").stat().st_size / rows


def name(index: int) -> str:
    return f"pictures/{index:07d}.png"


def status(folder: Path) -> None:
    rows = json.loads((folder / "images.json").read_text())["names"]
    assert read(folder).progress.exhausted == len(rows)


def resume(folder: Path) -> None:
    with Store(folder, CONFIG) as store:
        assert store.result(0).status is Status.EXHAUSTED


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


def measure(rows: int, checks: int = 40) -> dict[str, float]:
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        figures: dict[str, float] = {"rows": rows, "bytes a line": simulate(folder, rows, checks)}
        for work in (status, resume, table, page):
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                took = pool.submit(timed, work, folder).result()
            figures |= {f"{work.__name__}, {what}": value for what, value in took.items()}
    return figures


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--rows", type=int, default=1_000_000)
    arguments.add_argument("--checks", type=int, default=40, help="4 for rows of the recipe fast")
    options = arguments.parse_args()
    figures = measure(options.rows, options.checks)
    rows = ((what, f"{value:,.2f}" if isinstance(value, float) else f"{value:,}") for what, value in figures.items())
    show(("figure", "value"), rows)
    write(options.json, figures)


if __name__ == "__main__":
    main()
