"""How many rows go through the network at once, and what to do where memory runs out."""

import logging
from types import TracebackType

from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

from invmm_eval.errors import InvMMError

_log = logging.getLogger(__name__)


class MicroBatch:
    """The maximum number of rows of a network call, halved for the rest of the run where memory runs out.

    As a context manager it gives the number of rows, and suppresses an out-of-memory error after halving it:

        while True:
            with micro_batch as size:
                return work(size)

    Raises:
        InvMMError: Memory runs out for a single row.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._ran_out = False

    def __enter__(self) -> int:
        if self._ran_out:
            # Only here, where the error and all tensors that it refers to are gone.
            clear_device_cache(garbage_collection=True)
            self._ran_out = False
        return self.size

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if not isinstance(error, RuntimeError) or not should_reduce_batch_size(error):
            return False
        if self.size == 1:
            raise InvMMError(
                "Memory ran out with a single row in the network; choose a lower precision, or a device with more "
                "memory."
            ) from error
        self.size //= 2
        self._ran_out = True
        _log.warning("Out of memory: network calls now have at most %d rows.", self.size)
        return True
