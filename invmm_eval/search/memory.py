"""How many rows go through the network at once, and what to do where memory runs out."""

import logging
from collections.abc import Callable
from typing import TypeVar

from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

from invmm_eval.errors import InvMMError

_log = logging.getLogger(__name__)

R = TypeVar("R")


class MicroBatch:
    """The maximum number of rows of a network call, halved for the rest of the run where memory runs out."""

    def __init__(self, size: int) -> None:
        self.size = size

    def run(self, work: Callable[[int], R]) -> R:
        """Call ``work`` with the number of rows, and again with half of it where memory runs out.

        Raises:
            InvMMError: Memory runs out for a single row.
        """
        while True:
            try:
                return work(self.size)
            except RuntimeError as error:
                if not should_reduce_batch_size(error):
                    raise
                if self.size == 1:
                    raise InvMMError(
                        "Memory ran out with a single row in the network; choose a lower precision, or a device with "
                        "more memory."
                    ) from error
            self.size //= 2
            _log.warning("Out of memory: network calls now have at most %d rows.", self.size)
            # Only here, where the error and all tensors that it refers to are gone.
            clear_device_cache(garbage_collection=True)
