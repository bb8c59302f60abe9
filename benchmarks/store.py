"""The time that the status, the table and the page of a very large audit take, and the time to list and resume it.

    python -m benchmarks.store                    # a million rows, about 0.7 GB in a temporary folder; needs Linux
    python -m benchmarks.store --rows 10000 --json store.json

The rows are those of one held-out picture, not replicated by the recipe fast, under other names. The images are empty
files in folders of a thousand. They are listed, and the folder is opened, as a run that resumes does before it reads
the first image. There are no files of tensors and pictures: of all that is measured only the page reads them, for at
most a thousand images. Each command runs in its own process: wall-clock seconds, CPU seconds, and peak memory in GiB,
of which the libraries alone take up to half a GiB.
"""

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.common.script import parser, peak, show, write
from invmm_eval import audit, find_images, report
from invmm_eval.audits.folder import read
from invmm_eval.audits.folder.requested import Requested
from invmm_eval.audits.folder.rows import line_of
from invmm_eval.audits.folder.writing import Store
from invmm_eval.reference import MODEL, THRESHOLD, pictures
from invmm_eval.search.result import Status


def simulate(folder: Path, rows: int) -> float:
    """Write the rows and the images of an audit that has ended; returns bytes per row."""
    held_out = next(picture.image for picture in pictures() if picture.copies == 0)
    settings = {"threshold": THRESHOLD, "plain": 64}
    audit(MODEL, [held_out], out=folder, similarity="pixel-cosine", settings=settings, keep="nothing", progress=False)
    [row] = read(folder).rows
    names = [f"{index // 1000:04d}/{index:07d}.png" for index in range(rows)]
    with (folder / "results.jsonl").open("wb") as lines:
        for index, name in enumerate(names):
            image = folder / "images" / name
            image.parent.mkdir(parents=True, exist_ok=True)
            image.touch()
            digest = sha256(str(index).encode()).hexdigest()
            lines.write(line_of({**row, "index": index, "name": name, "digest": digest}))
    Requested.now(names).save(folder)
    return (folder / "results.jsonl").stat().st_size / rows


def status(folder: Path) -> None:
    found = read(folder)
    assert found.progress.done == len(found.rows)


def resume(folder: Path) -> None:
    images = Requested.now([source.name for source in find_images(folder / "images")])
    with Store(folder, read(folder).config, images) as store:
        assert store.result(len(images.names) - 1).status is Status.EXHAUSTED


Work = Callable[[Path], object]
COMMANDS: dict[str, Work] = {"status": status, "resume": resume, "table": partial(report, format="csv"), "page": report}


def timed(work: Work, folder: Path) -> dict[str, float]:
    started, used = time.perf_counter(), time.process_time()
    work(folder)
    return {"seconds": time.perf_counter() - started, "CPU seconds": time.process_time() - used, "GiB": peak()}


def measure(rows: int) -> dict[str, float]:
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        figures: dict[str, float] = {"rows": rows, "bytes a line": simulate(folder, rows)}
        for name, work in COMMANDS.items():
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                took = pool.submit(timed, work, folder).result()
            figures |= {f"{name}, {what}": value for what, value in took.items()}
    return figures


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--rows", type=int, default=1_000_000)
    options = arguments.parse_args()
    figures = measure(options.rows)
    show(("figure", "value"), ((what, f"{value:,.2f}") for what, value in figures.items()))
    write(options.json, figures)


if __name__ == "__main__":
    main()
