"""Ranks: the processes that torchrun started.

They exchange JSON and safetensors through torchrun's key-value store; nothing is unpickled. Rank 0 writes the next
images to it, numbered from 1, and a rank with a free place takes the next number: as images differ in steps, equal
shares would not take equal time. Every rank (rank 0 in a thread) writes messages: one when it is ready, and one per
result. A rank that dies is detected by the launcher of its machine, which ends the others there; a machine that dies is
detected by its ranks' silence.
"""

import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache, partial
from itertools import count, islice
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from invmm_eval.audits.options import Resources
from invmm_eval.audits.workers.team import MakePlan, Ready, Team, check_agreement, share, start
from invmm_eval.errors import InvMMError
from invmm_eval.search.result import Result
from invmm_eval.search.target import Target
from invmm_eval.strict_json import parsed

POLL = 0.05
"""Seconds between two looks at the store. Signals do not interrupt its own way to wait."""

PART = 4 << 20
"""Bytes per write to the store, which refuses more than 8 MiB."""

BEAT = 5.0
"""Seconds between two signs of life of a rank."""

SILENCE = 120.0
"""Seconds without one after which a rank, or its machine, is taken for dead."""

Message = tuple[Any, dict[str, Tensor]]

_audits = count()


@contextmanager
def ranks(make_plan: MakePlan, resources: Resources, images: int, kind: type[Any] = Result) -> Iterator[Team | None]:
    """Measure images in the processes that torchrun started, each of which must make this call.

    Rank 0 has the team. The other ranks have None when all images are measured.

    Args:
        make_plan: Makes the plan, in each rank.
        resources: The device (None and ``cuda`` take the rank's own GPU if there is one) and the sizes of batches.
        images: Number of images; only rank 0's is used.
        kind: What is found for an image.

    Raises:
        InvMMError: This process was not started by torchrun.
    """
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        raise InvMMError(
            "The workers 'ranks' are the processes that torchrun started, and this is none of them; start the script "
            "by torchrun, or give a number of workers."
        )
    if "TORCHELASTIC_RUN_ID" in os.environ:  # another launcher may end before its ranks
        _end_with_parent()
    audit = f"invmm-eval {next(_audits)}"
    [(store, rank, size), (own, _, _)] = [next(rendezvous("env://")) for _ in range(2)]
    store, own = PrefixStore(audit, store), PrefixStore(audit, own)
    work = partial(_work, own, make_plan, replace(resources, device=_device_of_rank(resources.device, rank)))
    if rank > 0:
        with _beating(store, rank):
            work()
        store.add("finished", 1)
        yield None
        return
    with ThreadPoolExecutor(1) as thread:
        places = share(images, size, resources.batch_size)
        store.set("places", str(places))
        messages = _messages(store, thread.submit(work), _Pulse(store, range(1, size)))
        try:
            first = _ready(next(messages)[0])
            numbers = count(1)
            results = _results(messages, first, kind)
            yield Team(first, partial(_measure, store, results, size * (places + 1), numbers))
            _end(store, size, numbers)
        except BaseException:
            store.set("stopped", "")
            raise
        while store.add("finished", 0) < size - 1:  # the store may end with this process
            time.sleep(POLL)


@cache
def _end_with_parent() -> None:
    """End this process soon after the one that started it was killed, of which a busy worker is not told."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _beating(store: Store, rank: int) -> Iterator[None]:
    """Give signs of life."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(BEAT):
            store.add(f"beats {rank}", 1)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class _Pulse:
    """The signs of life of ranks, as rank 0 sees them."""

    def __init__(self, store: Store, ranks: Iterable[int]) -> None:
        self._store = store
        self._seen = dict.fromkeys(ranks, (0, time.monotonic()))
        self._looked = time.monotonic()

    def check(self) -> None:
        """Raise InvMMError if a rank has been silent for too long."""
        now = time.monotonic()
        if now < self._looked + min(BEAT, SILENCE):
            return
        self._looked = now
        for rank, (beats, since) in self._seen.items():
            if (count := self._store.add(f"beats {rank}", 0)) != beats:
                self._seen[rank] = count, now
            elif now > since + SILENCE:
                raise InvMMError(
                    f"Rank {rank} has given no sign of life for {SILENCE:g} seconds, as if its machine had died. "
                    "Results are kept; run the same command again to resume."
                )


def _device_of_rank(device: str | None, rank: int) -> str | None:
    if device in (None, "cuda") and torch.cuda.is_available():
        return f"cuda:{int(os.environ.get('LOCAL_RANK', rank)) % torch.cuda.device_count()}"
    return device


def _put(store: Any, key: str, plain: object, tensors: Mapping[str, Tensor] | None = None) -> None:
    """Write JSON and tensors. The key itself is written last."""
    data = json.dumps(plain).encode() + b"\n" + save(dict(tensors or {}))
    for begin in range(0, len(data), PART):
        store.append(f"{key} data", data[begin : begin + PART])
    store.set(key, "")


def _take(store: Store, key: str) -> Message:
    """Read and delete what :func:`_put` wrote."""
    plain, _, tensors = store.get(f"{key} data").partition(b"\n")
    store.delete_key(f"{key} data")
    store.delete_key(key)
    return parsed(plain), load(tensors)


def _work(store: Store, make_plan: MakePlan, resources: Resources) -> None:
    """Measure images until there are no more, or rank 0 has stopped."""

    def check(_: object = None) -> None:
        if store.check(["stopped"]):
            raise SystemExit

    def wait(key: str) -> None:
        while not store.check([key]):
            check()
            time.sleep(POLL)

    def say(plain: object, tensors: Mapping[str, Tensor] | None = None) -> None:
        _put(store, f"message {store.add('messages', 1)}", plain, tensors)

    with suppress(SystemExit):
        try:
            plan, ready = start(make_plan, resources.device)
        except InvMMError as error:
            say({"error": str(error)})
            wait("stopped")
        say({"ready": [ready.image_shape, ready.config, ready.machine]})
        wait("places")
        places, micro_batch = int(store.get("places")), resources.micro_batch
        images = _Taken(store, wait)
        for result in plan.measure(images, batch_size=places, micro_batch=micro_batch, on_step=check):
            say({"result": replace(result, index=images.under_way.pop(result.index)).record()}, result.tensors())


class _Taken(Iterator[Target]):
    """The images that a rank takes. It waits for one if none is being measured; else there may be none at the moment.

    Attributes:
        under_way: By the number of an image in this rank, its number in the audit.
    """

    def __init__(self, store: Store, wait: Callable[[str], None]) -> None:
        self.under_way: dict[int, int] = {}
        self._store = store
        self._wait = wait
        self._numbers = count()
        self._key: str | None = None
        self._ended = False

    def __next__(self) -> Target:
        if self._ended:
            raise StopIteration
        self._key = self._key or f"image {self._store.add('images', 1)}"
        if self.under_way and not self._store.check([self._key]):
            raise StopIteration
        self._wait(self._key)
        words, tensors = _take(self._store, self._key)
        self._key = None
        if not words:
            self._ended = True
            raise StopIteration
        self.under_way[next(self._numbers)], *name_and_caption = words
        return Target(tensors["image"], *name_and_caption)


def _messages(store: Store, worker: "Future[None]", pulse: _Pulse) -> Iterator[Message]:
    """The messages of all workers, of which rank 0's own is given, while the others give signs of life."""
    for number in count(1):
        while not store.check([f"message {number}"]):
            if worker.done():
                worker.result()  # raises what ended it, if it did not end by itself
            pulse.check()
            time.sleep(POLL)
        said, tensors = _take(store, f"message {number}")
        if "error" in said:
            raise InvMMError(said["error"])
        yield said, tensors


def _ready(said: Mapping[str, Any]) -> Ready:
    shape, config, machine = said["ready"]
    return Ready(tuple(shape), config, machine)


def _results(messages: Iterator[Message], first: Ready, kind: type[Any]) -> Iterator[Any]:
    """The results among messages; other workers that are ready must agree with the first."""
    for said, tensors in messages:
        if "ready" in said:
            check_agreement(_ready(said), first)
        else:
            yield kind.from_record(said["result"], tensors)


def _measure(
    store: Store, results: Iterator[Any], ahead: int, numbers: Iterator[int], targets: Iterable[Target]
) -> Iterator[Any]:
    """Write images, at most ``ahead`` of them before their results arrive."""
    waiting = enumerate(targets)
    under_way = 0
    while True:
        while under_way < ahead and (image := next(waiting, None)):
            index, target = image
            words = index, target.name, target.caption
            _put(store, f"image {next(numbers)}", words, {"image": target.image.contiguous()})
            under_way += 1
        if not under_way:
            return
        yield next(results)
        under_way -= 1


def _end(store: Store, size: int, numbers: Iterator[int]) -> None:
    """Write an end for each of ``size`` ranks in place of further images."""
    for number in islice(numbers, size):
        _put(store, f"image {number}", None)
