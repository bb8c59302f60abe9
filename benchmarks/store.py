"""The time that the status of a very large audit takes, and the time to resume it.

    python benchmarks/store.py                    # a million rows, about 2.5 GB in a temporary folder
    python benchmarks/store.py --rows 10000 --json store.json

The rows are those of images that were not replicated by the published recipe for pixel models, 40 checks each. Files
of tensors and pictures are left out, since neither command reads them. Each command runs in its own process: wall-clock
seconds, CPU seconds, and peak memory in GiB, of which the libraries alone take half a GiB.
"""

import json
import multiprocessing
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.common.script import parser, show, write
from invmm_eval.audits.folder import read
from invmm_eval.audits.folder.requested import Requested
from invmm_eval.audits.folder.writing import Store
from invmm_eval.search.result import Check, Point, Result, Status


def simulate(folder: Path, rows: int) -> float:
    """Write the rows of an audit that has ended; returns bytes per row."""
    with Store(folder, {}, Requested.now([name(index) for index in range(rows)])):
        pass
    check = Check(passed=False, similarities={1.0: tuple(0.1234567 + k / 9 for k in range(8))}, samples={})
    trace = tuple(Point(50 * k, 0.1234567 / k, k / 30, 1 / k, k / 70) for k in range(1, 41))
    result = Result(0, "", "", Status.EXHAUSTED, 1.234567, 3072, 2000, check, trace=trace)
    always = {**result.record(), "sha256": "0" * 64, "finished": "2026-01-01T00:00:00.000+00:00"}
    rest = json.dumps({key: value for key, value in always.items() if key not in ("index", "name", "digest")})[1:]
    with (folder / "results.jsonl").open("w") as lines:
        for index in range(rows):
            digest = sha256(str(index).encode()).hexdigest()
            lines.write(f'{{"index": {index}, "name": "{name(index)}", "digest": "{digest}", {rest}\n')
    return (folder / "results.jsonl").stat().st_size / rows


def name(index: int) -> str:
    return f"pictures/{index:07d}.png"


def status(folder: Path) -> None:
    rows = json.loads((folder / "images.json").read_text())["names"]
    assert read(folder).progress.exhausted == len(rows)


def resume(folder: Path) -> None:
    with Store(folder, {}) as store:
        assert store.result(0).status is Status.EXHAUSTED


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
        for work in (status, resume):
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
