"""A search that runs in a thread and can be observed."""

from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from threading import Event

from invmm_eval.plugin import Plan, Result, Search, Target


def watch(
    plan: Plan, target: Target, *, micro_batch: int | None = None, every: float = 0.4
) -> Generator[Search | Result, None, None]:
    """Measure one image: yield its search from time to time, to be read only, and finally the result.

    Closing the iterator stops the search at its next step.

    Args:
        plan: The parts and settings of the search.
        target: The image.
        micro_batch: Maximum batch size of a network call. By default the number of draws of one image.
        every: Seconds between two yields.
    """
    running: list[Search] = []
    stopped = Event()

    def on_step(searches: Sequence[Search]) -> None:
        if stopped.is_set():
            raise InterruptedError("the iterator was closed")
        running[:] = searches

    threads = ThreadPoolExecutor(1, "search")
    searching = threads.submit(list, plan.measure([target], micro_batch=micro_batch, on_step=on_step))
    try:
        while not wait([searching], every).done:
            yield from running
        yield from searching.result()
    finally:
        stopped.set()
        threads.shutdown(wait=False)
