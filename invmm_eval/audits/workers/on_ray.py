"""Actors of Ray: one call per image, up to a batch of calls at each actor.

Ray queues the calls, detects processes that died and restarts them. This module decides what happens to the images of
such a process: they are measured again, each alone at an actor, so that an image that kills every process that measures
it fails by itself.
"""

import logging
import math
import os
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from itertools import count
from queue import Empty, SimpleQueue
from typing import Any

import torch

from invmm_eval.audits.options import Resources
from invmm_eval.audits.workers.team import MakePlan, Ready, Team, check_agreement, share, start
from invmm_eval.errors import InvMMError
from invmm_eval.search.result import Result
from invmm_eval.search.target import Target

TRIES = 3
"""Deaths of a process after which the image it measured has failed, or after which a worker cannot be started."""

Numbered = tuple[int, Target]
Call = tuple[Target | None, Future[Any]]

_DIED = (
    f"The process that measured it died {TRIES} times, the last times with this image alone: out of memory, or a crash "
    "of a library; see the logs of Ray."
)
_log = logging.getLogger(__name__)


class Worker:
    """Measures images; those of concurrent calls are searched together.

    Args:
        make_plan: Makes the plan, at the first call.
        resources: The device and the sizes of batches.
        threads: Number of CPU threads; None keeps the default.
    """

    def __init__(self, make_plan: MakePlan, resources: Resources, threads: int | None = None) -> None:
        self._make_plan = make_plan
        self._resources = resources
        self._threads = threads
        self._calls: SimpleQueue[Call] = SimpleQueue()
        threading.Thread(target=self._run, daemon=True).start()

    def ready(self) -> Ready:
        """Make the plan; raises what :func:`start` does."""
        ready: Ready = self._call(None)
        return ready

    def measure(self, target: Target) -> Any:
        """Measure an image."""
        return self._call(target)

    def _call(self, target: Target | None) -> Any:
        answer: Future[Any] = Future()
        self._calls.put((target, answer))
        return answer.result()

    def _run(self) -> None:
        arrivals = _Arrivals(self._calls)
        try:
            self._calls.put(self._calls.get())  # waits for the first call, and leaves it for later
            if self._threads:
                torch.set_num_threads(self._threads)
            plan, arrivals.ready = start(self._make_plan, self._resources.device)
            batch_size, micro_batch = self._resources.batch_size, self._resources.micro_batch
            for result in plan.measure(arrivals, batch_size=batch_size, micro_batch=micro_batch):
                arrivals.searched.pop(result.index).set_result(result)
        except BaseException as error:
            for answer in arrivals.searched.values():
                answer.set_exception(error)
            while True:
                self._calls.get()[1].set_exception(error)


class _Arrivals(Iterator[Target]):
    """The images of calls. It waits for one if none is being searched; else it may be exhausted for the moment."""

    def __init__(self, calls: "SimpleQueue[Call]") -> None:
        self.ready: Ready | None = None
        self.searched: dict[int, Future[Any]] = {}
        self._calls = calls
        self._numbers = count()

    def __next__(self) -> Target:
        while True:
            try:
                target, answer = self._calls.get(block=not self.searched)
            except Empty:
                raise StopIteration from None
            if target:
                self.searched[next(self._numbers)] = answer
                return target
            answer.set_result(self.ready)


@contextmanager
def actors(make_plan: MakePlan, resources: Resources, images: int, kind: type[Any] = Result) -> Iterator[Team]:
    """Start workers in the Ray cluster that ``RAY_ADDRESS`` names, or else on this machine.

    Args:
        make_plan: Makes the plan, in each worker.
        resources: The number of workers, the device (None gives each worker a GPU if there are any, else its share of
            the CPU cores) and the sizes of batches.
        images: Number of images.
        kind: What is found for an image.

    Raises:
        InvMMError: Ray is not installed, or cannot be started or reached.
    """
    try:
        import ray
    except ImportError as error:
        raise InvMMError("Workers need Ray: pip install 'invmm-eval[ray]'.") from error
    with ExitStack() as stack:
        if not ray.is_initialized():
            stack.callback(ray.shutdown)
            _start_ray(ray)
        assert isinstance(resources.workers, int)
        batch_size = share(images, resources.workers, resources.batch_size)
        team = _Actors(ray, make_plan, replace(resources, batch_size=batch_size), resources.workers, kind)
        stack.callback(team.stop)
        yield Team(team.first(), team.measure)


def _start_ray(ray: Any) -> None:
    """Start Ray without its messages, or connect to it; the handler of SIGTERM that Ray installs is removed."""
    address = os.environ.get("RAY_ADDRESS", "local")
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # Ray raises a bare Exception if the start takes too long
        raise InvMMError(f"Ray cannot be started or reached (RAY_ADDRESS is {address!r}): {error}") from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def actor_options(cluster: dict[str, float], workers: int, device: str | None) -> dict[str, Any]:
    """Ray's options for each of some actors: its share of the cluster's CPU cores, or a GPU, and our environment."""
    cores = cluster.get("CPU", workers) / workers
    on_gpu = device in (None, "cuda") and "GPU" in cluster
    if on_gpu and cluster["GPU"] < workers:
        _log.warning("The cluster has %d GPUs for %d workers; the other workers wait.", cluster["GPU"], workers)
    environment = {name: value for name, value in os.environ.items() if name.startswith("INVMM_")}
    return {
        "num_cpus": math.floor(cores) or math.floor(100 * cores) / 100,
        "num_gpus": int(on_gpu),
        "runtime_env": {"env_vars": environment} if environment else None,
    }


class _Actors:
    """The driver's side."""

    def __init__(self, ray: Any, make_plan: MakePlan, resources: Resources, workers: int, kind: type[Any]) -> None:
        self._ray = ray
        self._kind = kind
        self._batch_size = resources.batch_size
        options = actor_options(ray.cluster_resources(), workers, resources.device)
        threads = None if "OMP_NUM_THREADS" in os.environ else max(1, math.floor(options["num_cpus"]))
        actor = ray.remote(Worker).options(max_restarts=TRIES - 1, max_concurrency=resources.batch_size, **options)
        self._new = partial(actor.remote, make_plan, resources, threads)
        self._first: Ready | None = None
        self._starting: dict[Any, Any] = {}
        self._ready: set[Any] = set()
        for _ in range(workers):
            self._start()

    def _start(self) -> None:
        """Start an actor. Ray restarts it while it loads the model; once it is ready, a dead one is replaced here."""
        worker = self._new()
        self._starting[worker.ready.options(max_task_retries=-1).remote()] = worker

    def first(self) -> Ready:
        """The first report."""
        while not self._first:
            [reference], _ = self._ray.wait(list(self._starting))
            self._receive_ready(reference)
        return self._first

    def measure(self, targets: Iterable[Target]) -> Iterator[Any]:
        lost = yield from self._measure(enumerate(targets), self._batch_size)
        for _ in range(TRIES - 1):
            lost = yield from self._measure(iter(lost), 1)
        for number, target in lost:
            yield self._kind.failure(number, target.name, target.digest, target.caption, _DIED)

    def _measure(self, images: Iterator[Numbered], places: int) -> Generator[Any, None, list[Numbered]]:
        """Measure images, with at most ``places`` of them at each actor; returns those whose actor died."""
        lost: list[Numbered] = []
        calls: dict[Any, tuple[Any, Numbered]] = {}
        free = deque(worker for _ in range(places) for worker in self._ready)
        image = None
        while (image := image or next(images, None)) or calls:
            while image and free:
                worker = free.popleft()
                calls[worker.measure.remote(image[1])] = worker, image
                image = next(images, None)
            [reference], _ = self._ray.wait([*calls, *self._starting])
            if reference in self._starting:
                free.extend([self._receive_ready(reference)] * places)
                continue
            worker, (number, _) = calls[reference]
            try:
                result = self._get(reference)
            except self._ray.exceptions.RayError:
                _log.warning("A worker died and is replaced; its images are measured again, one at a time.")
                lost += [its for at, its in calls.values() if at is worker]
                calls = {call: at for call, at in calls.items() if at[0] is not worker}
                free = deque(place for place in free if place is not worker)
                self._ready.remove(worker)
                self._ray.kill(worker)
                self._start()
            else:
                del calls[reference]
                free.append(worker)
                yield replace(result, index=number)
        return lost

    def _get(self, reference: Any) -> Any:
        """What a call returned or raised; Ray's own errors mean that its process died."""
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from error

    def _receive_ready(self, reference: Any) -> Any:
        try:
            ready = self._get(reference)
        except self._ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[-1]
            raise InvMMError(
                f"A worker cannot be started, or died {TRIES} times while it loaded the model: {reason}"
            ) from error
        self._first = self._first or ready
        check_agreement(ready, self._first)
        worker = self._starting.pop(reference)
        self._ready.add(worker)
        return worker

    def stop(self) -> None:
        for worker in self._ready.union(self._starting.values()):
            self._ray.kill(worker)
