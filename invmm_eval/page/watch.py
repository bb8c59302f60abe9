"""A search that can be looked at while it goes on in a thread of its own."""

from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from threading import Event

from invmm_eval.audits.auditing import Plan
from invmm_eval.audits.images import Source
from invmm_eval.search.result import Result
from invmm_eval.search.search import Search


def watch(
    plan: Plan, source: Source, *, micro_batch: int | None = None, every: float = 0.4
) -> Generator[Search | Result, None, None]:
    """Measure one image, yielding its search now and then, to be read only, and at last the result.

    Closing the iterator ends the search at its next step.

    Args:
        plan: What decides the result.
        source: The image.
        micro_batch: At most so many rows go through the network at once; None takes one image's draws.
        every: Seconds between two looks.
    """
    under_way: list[Search] = []
    left = Event()

    def on_step(searches: Sequence[Search]) -> None:
        if left.is_set():
            raise InterruptedError("nobody looks any more")
        under_way[:] = searches

    threads = ThreadPoolExecutor(1, "search")
    searching = threads.submit(list, plan.run([source], micro_batch=micro_batch, on_step=on_step))
    try:
        while not wait([searching], every).done:
            yield from under_way
        yield from searching.result()
    finally:
        left.set()
        threads.shutdown(wait=False)
