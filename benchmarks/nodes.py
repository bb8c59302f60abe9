"""Audits on two nodes of which one dies: the results are those of one process.

    sudo python -m benchmarks.nodes                  # ten minutes on 2 cores; needs Linux, root, iproute2 and Ray
    sudo python -m benchmarks.nodes --by torchrun

The nodes are network namespaces of this machine, joined by a pair of virtual interfaces. ``invmm-eval audit`` screens
and searches pictures of the reference model in one process, then by workers of Ray and by ranks of torchrun on the two
nodes. When the second result is written, everything on the second node is killed by SIGKILL. torchrun ends then, and
the same command is run again on both. Scores and results must be those of one process, but for times and order. The
table has the number kept from before and the seconds to the end. The tests of the package kill workers on one node.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.common.script import parser, show, write
from invmm_eval.audits.folder import read
from invmm_eval.audits.folder.scores import read_scores

RAY = str(Path(sys.executable).with_name("ray"))
NODES = {"invmm-a": "10.77.0.1", "invmm-b": "10.77.0.2"}
HERE, THERE = NODES
PORT = 29577
TIMES = ("seconds_steps", "seconds_checks")
SEARCH = [
    *("--similarity", "pixel-cosine", "--recipe", "demo", "--control", "3", "--clean", "3", "--batch-size", "1"),
    *("--set", "max_steps=20", "--set", "check_every=10", "--set", "draws=4", "--set", "sampler_steps=10"),
    *("--set", "confirm=8"),
]

Run = subprocess.Popen[bytes]


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


def on(node: str, *command: str) -> list[str]:
    return ["ip", "netns", "exec", node, *command]


def kill_node(node: str) -> None:
    for process in ip("netns", "pids", node).split():
        os.kill(int(process), signal.SIGKILL)


@contextmanager
def nodes() -> Iterator[None]:
    """The two namespaces, which end with everything in them."""
    with ExitStack() as stack:
        for name in NODES:
            ip("netns", "add", name)
            stack.callback(ip, "netns", "del", name)
            stack.callback(kill_node, name)
        ip("link", "add", "eth0", "netns", HERE, "type", "veth", "peer", "name", "eth0", "netns", THERE)
        for name, address in NODES.items():
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                ip("-n", name, "link", "set", device, "up")
        yield


class Case:
    """One way to run the audit; what it prints is kept beside its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.command = [
            *(sys.executable, "-m", "invmm_eval", "audit", "--model", "reference", "--images", "reference"),
            *("--out", str(folder), "--device", "cpu", *SEARCH),
        ]
        self.log = folder.with_suffix(".log")

    def start(self, command: Sequence[str], **environment: str) -> Run:
        with self.log.open("ab") as file:
            return subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ, **environment})

    def kept(self) -> int:
        results = self.folder / "results.jsonl"
        return results.read_bytes().count(b"\n") if results.exists() else 0

    def require(self, as_it_should: bool) -> None:
        if not as_it_should:
            raise SystemExit(f"The run of {self.folder.name} ended otherwise:\n{self.log.read_text()[-2000:]}")

    def disturbed(self, run: Run) -> tuple[int, float]:
        """Kill the second node; the number of results before, and the seconds until the run on the first ended."""
        while (kept := self.kept()) < 2:
            self.require(run.poll() is None)
            time.sleep(0.02)
        kill_node(THERE)
        killed = time.monotonic()
        run.wait()
        return kept, time.monotonic() - killed

    def found(self) -> list[Any]:
        """The scores, and the results but for the times, by image."""
        scores, audit = read_scores(self.folder)[1], read(self.folder)
        found: list[Any] = [(index, one.digest, one.score) for index, one in sorted(scores.items())]
        for result in map(audit.result, audit.rows):
            values = {name: value for name, value in result.record().items() if name not in TIMES}
            found.append((values, {name: tensor.tolist() for name, tensor in result.tensors().items()}))
        return found


def by_ray(case: Case) -> tuple[int, float]:
    """Workers of Ray, whose head is on the first node and which has one core on each."""
    address = f"{NODES[HERE]}:{PORT}"
    for node, where in ((HERE, ("--head", "--port", str(PORT))), (THERE, ("--address", address))):
        more = ("--node-ip-address", NODES[node], "--num-cpus", "1", "--disable-usage-stats")
        case.require(case.start(on(node, RAY, "start", *where, *more)).wait() == 0)
    run = case.start(on(HERE, *case.command, "--workers", "2"), RAY_ADDRESS=address)
    before = case.disturbed(run)
    case.require(run.returncode == 0)
    return before


def by_torchrun(case: Case) -> tuple[int, float]:
    """A rank of torchrun on each node."""

    def started() -> Run:
        where = ["--nnodes", "2", "--nproc-per-node", "1", "--master-port", str(PORT), "--master-addr", NODES[HERE]]
        launcher = [sys.executable, "-m", "torch.distributed.run", *where, "--no-python"]
        first, _ = [
            case.start(on(node, *launcher, "--node-rank", str(rank), *case.command)) for rank, node in enumerate(NODES)
        ]
        return first

    run = started()
    before = case.disturbed(run)
    case.require(run.returncode != 0)
    case.require(started().wait() == 0)
    return before


WAYS: dict[str, Callable[[Case], tuple[int, float]]] = {"ray": by_ray, "torchrun": by_torchrun}


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--by", nargs="*", choices=WAYS, default=list(WAYS))
    options = arguments.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("RAY_AUTH_MODE", "token")  # which the head of a cluster asks of all others
    subprocess.run([RAY, "get-auth-token", "--generate"], check=True, capture_output=True)
    rows = []
    with TemporaryDirectory() as temporary:
        alone = Case(Path(temporary, "alone"))
        alone.require(alone.start(alone.command).wait() == 0)
        for way in options.by:
            case = Case(Path(temporary, way))
            with nodes():
                kept, seconds = WAYS[way](case)
            rows.append({"by": way, "kept": kept, "seconds": round(seconds), "same": case.found() == alone.found()})
    show(list(rows[0]), (row.values() for row in rows))
    write(options.json, rows)


if __name__ == "__main__":
    main()
