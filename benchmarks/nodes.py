"""Audits on two nodes of which one dies, and on two workers of which one dies: the results are those of one process.

    sudo python benchmarks/nodes.py                  # ten minutes on 2 cores; needs Linux, root, iproute2 and Ray
    sudo python benchmarks/nodes.py --json nodes.json

The nodes are network namespaces of this machine, joined by a pair of virtual interfaces. ``invmm-eval audit`` and
``invmm-eval screen`` measure pictures of the reference model in one process, then by workers of Ray, by ranks of
torchrun, and by both on the two nodes. When the second result is written, a worker, or everything on the second node,
is killed by SIGKILL. torchrun ends then, and the same command is run again. Scores and results must be those of one
process, but for times and order; the table says how many were kept from before.
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
from invmm_eval.reference import MODEL, pictures

RAY = str(Path(sys.executable).with_name("ray"))
NODES = {"invmm-a": "10.77.0.1", "invmm-b": "10.77.0.2"}
HERE, THERE = NODES
PORT = 29577
IMAGES = 6
TIMES = ("seconds_steps", "seconds_checks")
SEARCH = [
    *("--recipe", "demo", "--control", "3", "--clean", "4", "--batch-size", "1", "--set", "max_steps=20"),
    *("--set", "check_every=10", "--set", "draws=4", "--set", "sampler_steps=10", "--set", "confirm=8"),
]

Command = Sequence[str]
Kill = Callable[[subprocess.Popen[bytes]], None]


@contextmanager
def nodes() -> Iterator[None]:
    """The two namespaces, which end with everything in them."""
    ends = {name: f"veth-{name[-1]}" for name in NODES}
    with ExitStack() as stack:
        for name in NODES:
            _ip("netns", "add", name)
            stack.callback(_ip, "netns", "del", name)
            stack.callback(kill_node, name)
        _ip("link", "add", ends[HERE], "netns", HERE, "type", "veth", "peer", "name", ends[THERE], "netns", THERE)
        for name, address in NODES.items():
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", ends[name])
            for device in ("lo", ends[name]):
                _ip("-n", name, "link", "set", device, "up")
        yield


def _ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


def on(node: str, command: Command) -> list[str]:
    return ["ip", "netns", "exec", node, *command]


def kill_node(node: str) -> None:
    for process in _ip("netns", "pids", node).split():
        os.kill(int(process), signal.SIGKILL)


def kill_below(sign: bytes, run: subprocess.Popen[bytes]) -> None:
    """Kill the first process below a run whose command line or environment has a sign."""
    below = {run.pid}
    for _ in range(4):
        below |= {int(p.parent.name) for p in Path("/proc").glob("[0-9]*/stat") if _parent(p) in below}
    for process in sorted(below - {run.pid}):
        place = Path(f"/proc/{process}")
        if sign in (place / "cmdline").read_bytes() or sign in (place / "environ").read_bytes().split(b"\0"):
            os.kill(process, signal.SIGKILL)
            return
    raise SystemExit(f"There is no process with {sign!r} below {run.pid}.")


def _parent(stat: Path) -> int:
    try:
        return int(stat.read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError):
        return -1


class Case:
    """One way to run a command, of which something is killed in the middle."""

    def __init__(self, folder: Path, images: Path, verb: str) -> None:
        self.folder = folder
        chosen = ["--similarity", "pixel-cosine", *SEARCH] if verb == "audit" else []
        self.command = [
            *(sys.executable, "-m", "invmm_eval.cli", verb, "--model", str(MODEL), "--images", str(images)),
            *("--out", str(folder), "--device", "cpu", *chosen),
        ]
        self.told = (folder.parent / f"{folder.name}.log").open("ab")

    def start(self, command: Command, **environment: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, stdout=self.told, stderr=self.told, env={**os.environ, **environment})

    def kept(self) -> int:
        results = self.folder / "results.jsonl"
        return results.read_bytes().count(b"\n") if results.exists() else 0

    def run(self, command: Command, **environment: str) -> None:
        if self.start(command, **environment).wait():
            raise SystemExit(f"{' '.join(command)} failed:\n{Path(self.told.name).read_text()[-2000:]}")

    def disturbed(self, command: Command, kill: Kill, *, ends: bool, **environment: str) -> tuple[int, float]:
        """Run a command of which something is killed; the number of results before, and the seconds until its end."""
        run = self.start(command, **environment)
        while (kept := self.kept()) < 2:
            if run.poll() is not None:
                raise SystemExit(f"The run ended early:\n{Path(self.told.name).read_text()[-2000:]}")
            time.sleep(0.02)
        kill(run)
        killed = time.monotonic()
        if bool(run.wait()) != ends:
            raise SystemExit(f"The run ended with {run.returncode}:\n{Path(self.told.name).read_text()[-2000:]}")
        return kept, time.monotonic() - killed

    def found(self) -> list[Any]:
        """The scores, and the results but for the times, by image."""
        scores = read_scores(self.folder)[1]
        found: list[Any] = [(index, one.digest, one.score) for index, one in sorted(scores.items())]
        if self.kept():
            audit = read(self.folder)
            for result in map(audit.result, audit.rows):
                values = {name: value for name, value in result.record().items() if name not in TIMES}
                found.append((values, {name: tensor.tolist() for name, tensor in result.tensors().items()}))
        return found


def torchrun(command: Command, *where: str) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", *where, "--no-python", *command]


def one_of_two(command: Command, node: int) -> list[str]:
    where = ["--nnodes", "2", "--nproc-per-node", "1", "--node-rank", str(node), "--master-port", str(PORT)]
    return on([*NODES][node], torchrun(command, *where, "--master-addr", NODES[HERE]))


@contextmanager
def ray_on(*of: str) -> Iterator[None]:
    """Ray on nodes of one core each, the head on the first."""
    for node in of:
        where = ["--head", "--port", str(PORT)] if node == HERE else ["--address", f"{NODES[HERE]}:{PORT}"]
        more = ["--node-ip-address", NODES[node], "--num-cpus", "1", "--disable-usage-stats"]
        start = [RAY, "start", *where, *more]
        subprocess.run(on(node, start), check=True, capture_output=True)
    try:
        yield
    finally:
        for node in of:
            kill_node(node)


def on_workers_of_ray(case: Case, disturb: bool) -> tuple[int, float]:
    command = [*case.command, "--workers", "2"]
    if disturb:
        return case.disturbed(command, lambda run: kill_below(b"ray::Worker", run), ends=False)
    case.run(command)
    return 0, 0.0


def on_ranks(case: Case, disturb: bool) -> tuple[int, float]:
    command = torchrun(case.command, "--standalone", "--nproc-per-node", "2")
    kept = case.disturbed(command, lambda run: kill_below(b"LOCAL_RANK=1", run), ends=True) if disturb else (0, 0.0)
    case.run(command)
    return kept


def on_nodes_of_ray(case: Case, disturb: bool) -> tuple[int, float]:
    command = on(HERE, [*case.command, "--workers", "2"])
    with ray_on(*NODES):
        address = {"RAY_ADDRESS": f"{NODES[HERE]}:{PORT}"}
        if disturb:
            return case.disturbed(command, lambda _: kill_node(THERE), ends=False, **address)
        case.run(command, **address)
    return 0, 0.0


def on_nodes_of_torchrun(case: Case, disturb: bool) -> tuple[int, float]:
    kept = 0, 0.0
    if disturb:
        case.start(one_of_two(case.command, 1))
        kept = case.disturbed(one_of_two(case.command, 0), lambda _: kill_node(THERE), ends=True)
    there = case.start(one_of_two(case.command, 1))
    case.run(one_of_two(case.command, 0))
    there.wait()
    return kept


WAYS: dict[str, Callable[[Case, bool], tuple[int, float]]] = {
    "2 workers of Ray": on_workers_of_ray,
    "2 ranks of torchrun": on_ranks,
    "2 nodes of Ray": on_nodes_of_ray,
    "2 nodes of torchrun": on_nodes_of_torchrun,
}


def measure(place: Path, ways: Sequence[str], verbs: Sequence[str]) -> list[dict[str, Any]]:
    images = place / "images"
    images.mkdir()
    for picture in pictures()[:IMAGES]:
        picture.image.save(images / f"{picture.code}.png")
    facts = []
    for verb in verbs:
        alone = Case(place / f"{verb} alone", images, verb)
        alone.run(alone.command)
        expected = alone.found()
        for way in ways:
            case = Case(place / f"{verb} by {way}", images, verb)
            kept, seconds = WAYS[way](case, verb == "audit")
            same = case.found() == expected
            facts.append({"command": verb, "by": way, "kept": kept, "seconds to the end": round(seconds), "same": same})
            print(facts[-1], flush=True)
    return facts


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--by", nargs="*", choices=WAYS, default=list(WAYS))
    arguments.add_argument("--commands", nargs="*", choices=("screen", "audit"), default=["screen", "audit"])
    options = arguments.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("RAY_AUTH_MODE", "token")  # which the head of a cluster asks of all others
    subprocess.run([RAY, "get-auth-token", "--generate"], check=True, capture_output=True)
    with TemporaryDirectory() as temporary, nodes():
        facts = measure(Path(temporary), options.by, options.commands)
    columns = ("command", "by", "kept", "seconds to the end", "same")
    show(columns, ([str(fact[column]) for column in columns] for fact in facts))
    write(options.json, facts)


if __name__ == "__main__":
    main()
