"""One audit on many processes: workers of Ray on a machine or a cluster, or the ranks that torchrun started.

One process, the driver, reads the images, deals them out as places become free, and alone writes results. A worker
makes the plan from what was asked for and searches what it is given. As an image's result does not depend on its
company, it does not depend on its worker either.

    driver  -- (number, target) ... -->  worker: plan.measure  -- Ready, then a Result at a time -->  driver
"""

import json
import logging
import math
import os
import platform
import secrets
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from importlib.metadata import version
from itertools import islice
from multiprocessing.connection import Client, Connection, Listener, Pipe, wait
from typing import TYPE_CHECKING, Any, Protocol

import torch
import torch.distributed as dist
from safetensors.torch import load, save
from torch import Tensor

from invmm_eval.errors import InvMMError
from invmm_eval.search.result import Result, Status
from invmm_eval.search.target import Target

if TYPE_CHECKING:
    from invmm_eval.audits.auditing import Plan

Numbered = tuple[int, Target]

TRIES = 3
"""An image whose worker died so often is given up."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ready:
    """What a worker says when it has made its plan.

    Attributes:
        image_shape: That of the model's images.
        config: All that decides results, as the plan tells it.
        machine: Where it is.
    """

    image_shape: tuple[int, int, int]
    config: Mapping[str, Any]
    machine: str


class Worker:
    """Searches what it is given, up to a batch at once; it is the same in an actor of Ray and in a rank.

    Args:
        plan: Makes the plan, for a device by name.
        device: That name.
        batch_size: Images searched together.
        micro_batch: At most so many rows go through the network at once; None takes one image's draws.
        threads: Of the CPU; None leaves them as they are.
    """

    def __init__(
        self,
        plan: Callable[[str | None], "Plan"],
        device: str | None,
        batch_size: int,
        micro_batch: int | None,
        threads: int | None = None,
    ) -> None:
        self._plan = plan
        self._device = device
        self._batch_size = batch_size
        self._micro_batch = micro_batch
        self._threads = threads
        self._waiting = _Waiting()
        self._stopped = False

    def start(self) -> Ready:
        """Make the plan.

        Raises:
            InvMMError: Something that was asked for does not exist here.
        """
        if self._threads:
            torch.set_num_threads(self._threads)
        try:
            plan = self._plan(self._device)
        except InvMMError as error:
            raise InvMMError(f"A worker on {platform.node()} cannot start: {error}") from error
        self._found = plan.measure(
            self._waiting, batch_size=self._batch_size, micro_batch=self._micro_batch, on_step=self._go_on
        )
        return Ready(plan.backbone.image_shape, plan.config, platform.node())

    def search(self, given: Sequence[Numbered]) -> Result:
        """Take these images too, and go on until a result is there; its index is the image's number."""
        self._waiting.images.extend(given)
        found = next(self._found)
        return replace(found, index=self._waiting.numbers.pop(found.index))

    def stop(self) -> None:
        """Have the thread that searches end after this step."""
        self._stopped = True

    def _go_on(self, _: object) -> None:
        if self._stopped:
            raise SystemExit


class _Waiting(Iterator[Target]):
    """Images that were given and not taken yet: at an end for the moment, where there are none."""

    def __init__(self) -> None:
        self.images: deque[Numbered] = deque()
        self.numbers: dict[int, int] = {}
        self._taken = 0

    def __next__(self) -> Target:
        if not self.images:
            raise StopIteration
        self.numbers[self._taken], target = self.images.popleft()
        self._taken += 1
        return target


class Crew(Protocol):
    """Workers, whoever started them. What is sent to one is answered by one :class:`Ready` or :class:`Result`."""

    def send(self, worker: Any, given: Sequence[Numbered]) -> None:
        """Have a worker take images and go on."""
        ...

    def receive(self) -> tuple[Any, Ready | Result | None]:
        """Wait for the next that a worker says; None where it died, and another one takes its place.

        Raises:
            InvMMError: The workers cannot go on.
        """
        ...


class Deal:
    """Deals images to a crew, and takes results back.

    The images of a worker that died are done again, one by one, each alone at its worker, so that one that kills
    whoever takes it is found out, and fails.

    Args:
        crew: The workers.
        places: Images at a worker at once.

    Raises:
        InvMMError: The workers cannot start or go on, or do not agree.
    """

    def __init__(self, crew: Crew, places: int) -> None:
        self._crew = crew
        self._places = places
        self._ready: list[Ready] = []
        self._held: dict[Any, dict[int, Target]] = {}
        self._busy: set[Any] = set()
        self._again: deque[Numbered] = deque()
        self._deaths: Counter[int] = Counter()

    @cached_property
    def first(self) -> Ready:
        """What the first worker said, with which all others must agree."""
        while not self._ready:
            self._hear()
        return self._ready[0]

    def measure(self, targets: Iterator[Target]) -> Iterator[Result]:
        """Measure images, yielding each result as it is ready, with the image's number as its index."""
        fresh = enumerate(targets)
        while True:
            for worker, held in self._held.items():
                if worker not in self._busy:
                    given = self._given(held, fresh)
                    held.update(given)
                    if held:
                        self._crew.send(worker, given)
                        self._busy.add(worker)
            if self._held and not self._busy:
                return
            yield from self._hear()

    def _given(self, held: Mapping[int, Target], fresh: Iterator[Numbered]) -> list[Numbered]:
        if self._again and not held:
            return [self._again.popleft()]
        return list(islice(fresh, self._places - len(held)))

    def _hear(self) -> list[Result]:
        worker, said = self._crew.receive()
        self._busy.discard(worker)
        if isinstance(said, Result):
            del self._held[worker][said.index]
            return [said]
        if isinstance(said, Ready):
            self._ready.append(said)
            _agree(said, self._ready[0])
            self._held[worker] = {}
            return []
        _log.warning("A worker died; another one takes its place, and its images are done again.")
        return [result for lost in self._held.pop(worker, {}).items() if (result := self._lost(*lost))]

    def _lost(self, number: int, target: Target) -> Result | None:
        """What becomes of an image whose worker died: another try, or a failure."""
        self._deaths[number] += 1
        if self._deaths[number] < TRIES:
            self._again.append((number, target))
            return None
        error = (
            f"Its worker died {TRIES} times, at last with this image alone: out of memory, or a crash of a library; "
            "the logs of Ray tell more."
        )
        return Result(number, target.name, target.digest, Status.FAILED, caption=target.caption, error=error)


def _agree(ready: Ready, first: Ready) -> None:
    mine, other = version("invmm-eval"), ready.config["versions"]["invmm-eval"]
    if mine != other:
        raise InvMMError(f"The worker on {ready.machine} has invmm-eval {other}, not {mine}; install that there.")
    here, there = (
        {f"{part} {key}": value for part, values in config.items() for key, value in _parts(values)}
        for config in (first.config, ready.config)
    )
    if differing := sorted(name.strip() for name in here.keys() | there.keys() if here.get(name) != there.get(name)):
        raise InvMMError(
            f"The worker on {ready.machine} and the one on {first.machine} differ in {', '.join(differing)}; install "
            "the same packages, and put the same model, on all machines."
        )


def _parts(values: object) -> list[tuple[str, object]]:
    return list(values.items()) if isinstance(values, Mapping) else [("", values)]


@contextmanager
def actors(
    plan: Callable[[str | None], "Plan"], count: int, *, device: str | None, batch_size: int, micro_batch: int | None
) -> Iterator[Crew]:
    """Workers of Ray, in the cluster that ``RAY_ADDRESS`` names, or else on this machine.

    Args:
        plan: Makes the plan, for a device by name.
        count: How many.
        device: None takes a GPU for each worker where there are any, else the CPU, of which each takes its share.
        batch_size: Images searched together by each.
        micro_batch: At most so many rows go through the network at once; None takes one image's draws.

    Raises:
        InvMMError: Ray is not installed, or there is no such cluster.
    """
    try:
        import ray
    except ImportError as error:
        raise InvMMError("Workers need Ray: pip install 'invmm-eval[ray]'.") from error
    with ExitStack() as stack:
        if not ray.is_initialized():
            stack.callback(ray.shutdown)
            _start_ray(ray)
        crew = _Actors(ray, plan, count, device, batch_size, micro_batch)
        stack.callback(crew.dismiss)
        yield crew


def _start_ray(ray: Any) -> None:
    """Quietly, and without the handler of SIGTERM that Ray sets."""
    address = os.environ.get("RAY_ADDRESS", "local")
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # a start that takes too long raises just this
        raise InvMMError(f"Ray cannot be started or reached (RAY_ADDRESS is {address!r}): {error}") from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


class _Actors:
    """Each worker an actor; one that dies is replaced."""

    def __init__(
        self,
        ray: Any,
        plan: Callable[[str | None], "Plan"],
        count: int,
        device: str | None,
        batch_size: int,
        micro_batch: int | None,
    ) -> None:
        self._ray = ray
        there = ray.cluster_resources()
        share = there.get("CPU", count) / count
        on_gpu = device in (None, "cuda") and "GPU" in there
        if on_gpu and there["GPU"] < count:
            _log.warning("There are %d GPUs for %d workers; the others wait for one.", there["GPU"], count)
        environment = {name: value for name, value in os.environ.items() if name.startswith("INVMM_")}
        actor = ray.remote(Worker).options(
            num_cpus=math.floor(share) or math.floor(100 * share) / 100,
            num_gpus=int(on_gpu),
            runtime_env={"env_vars": environment} if environment else None,
        )
        threads = None if "OMP_NUM_THREADS" in os.environ else max(1, math.floor(share))
        self._make = partial(actor.remote, plan, device, batch_size, micro_batch, threads)
        self._answers: dict[Any, Any] = {}
        self._started: dict[Any, bool] = {}
        self._stillborn = 0
        for _ in range(count):
            self._start()

    def _start(self) -> None:
        worker = self._make()
        self._started[worker] = False
        self._answers[worker.start.remote()] = worker

    def send(self, worker: Any, given: Sequence[Numbered]) -> None:
        self._answers[worker.search.remote(given)] = worker

    def receive(self) -> tuple[Any, Ready | Result | None]:
        [answer], _ = self._ray.wait(list(self._answers))
        worker = self._answers.pop(answer)
        try:
            said: Ready | Result = self._ray.get(answer)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except self._ray.exceptions.RayError as error:
            self._replace(worker, error)
            return worker, None
        if isinstance(said, Ready):
            self._started[worker] = True
            self._stillborn = 0
        return worker, said

    def _replace(self, worker: Any, error: Exception) -> None:
        self._ray.kill(worker)
        if not self._started.pop(worker):
            self._stillborn += 1
        if self._stillborn == TRIES:
            told = str(error).strip().splitlines()[-1]
            raise InvMMError(f"{TRIES} workers died one after the other while they loaded the model: {told}")
        self._start()

    def dismiss(self) -> None:
        """End all workers."""
        for worker in self._started:
            self._ray.kill(worker)


def launched() -> tuple[int, bool]:
    """How many processes torchrun, or a launcher like it, started together, and whether this is the first of them."""
    return int(os.environ.get("WORLD_SIZE", "1")), os.environ.get("RANK", "0") == "0"


@contextmanager
def ranks(
    plan: Callable[[str | None], "Plan"], *, device: str | None, batch_size: int, micro_batch: int | None
) -> Iterator[Crew | None]:
    """The processes that torchrun started, of which each must come here: a crew in rank 0, where one thread works too.

    In all other ranks this is None, and comes when all images are measured.

    Args:
        plan: Makes the plan, for a device by name.
        device: None and ``cuda`` take the rank's own GPU where there is one.
        batch_size: Images searched together by each.
        micro_batch: At most so many rows go through the network at once; None takes one image's draws.
    """
    mine = not dist.is_initialized()
    if mine:
        dist.init_process_group("gloo")
    try:
        rank, size = dist.get_rank(), dist.get_world_size()
        worker = Worker(plan, _device_of_rank(device, rank), batch_size, micro_batch)
        connections = _connections(rank, size, dist.new_group(backend="gloo"))
        if rank > 0:
            _serve(worker, connections[0])
            yield None
        else:
            here, there = Pipe()
            thread = threading.Thread(target=_serve, args=(worker, there), daemon=True)
            thread.start()
            try:
                yield _Ranks([here, *connections])
            finally:
                for connection in (here, *connections):
                    connection.close()
                worker.stop()
                thread.join()
    finally:
        if mine:
            dist.destroy_process_group()


def _device_of_rank(device: str | None, rank: int) -> str | None:
    if device in (None, "cuda") and torch.cuda.is_available():
        return f"cuda:{int(os.environ.get('LOCAL_RANK', rank)) % torch.cuda.device_count()}"
    return device


def _connections(rank: int, size: int, group: Any) -> list[Connection]:
    """Rank 0's to all others, or another rank's to it; only who was told its random key gets one."""
    if rank > 0:
        told = torch.zeros(33, dtype=torch.long)
        dist.broadcast(told, src=0, group=group)
        port, *bytes_of_key = told.tolist()
        return [Client((os.environ["MASTER_ADDR"], port), authkey=bytes(bytes_of_key))]
    key = secrets.token_bytes(32)
    with Listener(("", 0), backlog=size, authkey=key) as listener:
        dist.broadcast(torch.tensor([listener.address[1], *key]), src=0, group=group)
        return [listener.accept() for _ in range(size - 1)]


def _tell(connection: Connection, plain: object, tensors: Mapping[str, Tensor]) -> None:
    """Send plain data as JSON, and then tensors as safetensors."""
    connection.send_bytes(json.dumps(plain).encode())
    connection.send_bytes(save(dict(tensors)))


def _told(connection: Connection) -> tuple[Any, dict[str, Tensor]]:
    """Wait for what :func:`_tell` sends at the other end."""
    return json.loads(connection.recv_bytes()), load(connection.recv_bytes())


def _serve(worker: Worker, connection: Connection) -> None:
    """Say what the worker says, and hand it what comes, until the connection is closed."""
    said: tuple[dict[str, Any], Mapping[str, Tensor]]
    with connection:
        try:
            ready = worker.start()
            said = {"ready": [ready.image_shape, ready.config, ready.machine]}, {}
        except InvMMError as error:
            said = {"error": str(error)}, {}
        while True:
            try:
                _tell(connection, *said)
                given, images = _told(connection)
            except (EOFError, OSError):
                return
            found = worker.search([(number, Target(images[str(number)], *words)) for number, *words in given])
            said = {"result": found.record()}, found.tensors()


class _Ranks:
    """Each worker a rank at the other end of a connection; where one dies, the launcher ends all."""

    def __init__(self, connections: list[Connection]) -> None:
        self._connections = connections

    def send(self, worker: Connection, given: Sequence[Numbered]) -> None:
        images = {str(number): target.image.contiguous() for number, target in given}
        _tell(worker, [(number, target.name, target.caption) for number, target in given], images)

    def receive(self) -> tuple[Connection, Ready | Result]:
        worker = wait(self._connections)[0]
        assert isinstance(worker, Connection)
        try:
            said, tensors = _told(worker)
        except (EOFError, OSError) as error:
            rank = self._connections.index(worker)
            raise InvMMError(f"Rank {rank} died; what was finished is kept, and the same command goes on.") from error
        if "error" in said:
            raise InvMMError(said["error"])
        if "ready" in said:
            shape, config, machine = said["ready"]
            return worker, Ready(tuple(shape), config, machine)
        return worker, Result.from_record(said["result"], tensors)
