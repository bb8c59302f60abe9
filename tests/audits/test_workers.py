"""Many processes for one audit: the results are those of one, whatever dies."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Pipe
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

from invmm_eval.audits import workers as spread
from invmm_eval.audits.auditing import Order, Plan, audit, make_plan
from invmm_eval.audits.folder import read
from invmm_eval.audits.images import Source, prepare
from invmm_eval.audits.workers import TRIES, Deal, Numbered, Ready, Worker
from invmm_eval.errors import InvMMError
from invmm_eval.models.condition import Condition
from invmm_eval.plugins.host import host
from invmm_eval.reference import MODEL, pictures
from invmm_eval.search.result import Result, Status
from invmm_eval.search.target import Target
from tests.audits.test_folder import rows
from tests.helpers.command import Invoke
from tests.helpers.exact import Mixture
from tests.helpers.exact import pictures as noise

KNOWN = noise(5)
SETTINGS = {"max_steps": 10, "check_every": 5, "draws": 2, "check_images": 2, "sampler_steps": 5}
CONFIG: dict[str, Any] = {"seed": 0, "versions": make_plan(Mixture(KNOWN), "exact").config["versions"]}


def plan(device: str | None = None) -> Plan:
    """An audit of a model that knows all pictures but the last."""
    assert device in (None, "cpu")
    return make_plan(Mixture(KNOWN[:4]), "exact", similarity="pixel-cosine", settings=SETTINGS)


def targets(*kinds: int) -> list[Target]:
    return [Target(KNOWN[kind], str(kind)) for kind in kinds]


class Crew:
    """Workers in this process; one that is given a deadly image dies, and another one takes its place."""

    def __init__(self, count: int, deadly: Counter[str] | None = None, batch_size: int = 3) -> None:
        self.deadly = deadly or Counter()
        self.given: list[list[str]] = []
        self._batch_size = batch_size
        self._said: deque[tuple[Worker, Ready | Result | None]] = deque()
        for _ in range(count):
            self._start()

    def _start(self) -> None:
        worker = Worker(plan, "cpu", self._batch_size, None)
        self._said.append((worker, worker.start()))

    def send(self, worker: Worker, given: Sequence[Numbered]) -> None:
        names = [target.name for _, target in given]
        self.given.append(names)
        if killing := next((name for name in names if self.deadly[name] > 0), None):
            self.deadly[killing] -= 1
            self._said.append((worker, None))
            self._start()
        else:
            self._said.append((worker, worker.search(given)))

    def receive(self) -> tuple[Worker, Ready | Result | None]:
        return self._said.popleft()


def told(results: Iterator[Result] | Sequence[Result]) -> list[dict[str, Any]]:
    """All but the times, by index."""
    in_order = sorted(results, key=lambda result: result.index)
    return [replace(result, seconds_steps=0.0, seconds_checks=0.0).record() for result in in_order]


@pytest.mark.parametrize(("count", "places"), [(1, 1), (1, 3), (2, 2), (7, 2)])
def test_any_number_of_workers_finds_the_same(count: int, places: int) -> None:
    images = targets(4, 0, 1, 2, 3)
    alone = told(plan().measure(images, batch_size=1))
    assert told(Deal(Crew(count), places).measure(iter(images))) == alone
    assert told(Deal(Crew(count), places).measure(iter([]))) == []


def test_a_worker_has_so_many_images_at_once_and_takes_the_next_when_one_is_done() -> None:
    crew = Crew(1)
    list(Deal(crew, 2).measure(iter(targets(4, 0, 1))))
    assert crew.given == [["4", "0"], ["1"], []]


@pytest.mark.parametrize("deaths", range(1, TRIES))
@pytest.mark.parametrize("count", [1, 2])
def test_the_images_of_a_worker_that_died_are_done_again(count: int, deaths: int) -> None:
    images = targets(0, 1, 2, 3)
    crew = Crew(count, Counter({"2": deaths}))
    assert told(Deal(crew, 3).measure(iter(images))) == told(plan().measure(images))
    assert crew.deadly["2"] == 0


@pytest.mark.parametrize("count", [1, 3])
def test_an_image_that_kills_each_worker_fails_alone(count: int) -> None:
    images = targets(0, 1, 2, 3)
    crew = Crew(count, Counter({"1": 99}))
    found = {result.name: result for result in Deal(crew, 3).measure(iter(images))}
    assert {name for name, result in found.items() if result.status is not Status.FAILED} == {*"023"}
    assert (found["1"].index, found["1"].digest) == (1, images[1].digest)
    assert found["1"].error is not None
    assert found["1"].error.startswith(f"Its worker died {TRIES} times")
    assert crew.deadly["1"] == 99 - TRIES
    assert crew.given.count(["1"]) >= TRIES - 1


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"versions": {**CONFIG["versions"], "torch": "1.0"}}, "on b and the one on a differ in versions torch;"),
        ({"versions": {**CONFIG["versions"], "invmm-sd3": "1"}}, "on b and the one on a differ in versions invmm-sd3;"),
        ({"weights": "0" * 64}, "on b and the one on a differ in weights;"),
        ({"versions": {**CONFIG["versions"], "invmm-eval": "9.9"}}, "on b has invmm-eval 9.9, not 0"),
    ],
)
def test_workers_must_agree(config: dict[str, Any], sentence: str) -> None:
    class Differing(Crew):
        def _start(self) -> None:
            worker, first = Worker(plan, "cpu", 1, None), not self._said
            said = Ready((1, 4, 4), CONFIG if first else {**CONFIG, **config}, "a" if first else "b")
            self._said.append((worker, said))

        def send(self, worker: Worker, given: Sequence[Numbered]) -> None:
            """It works, and is not done before the other one is there."""

    deal = Deal(Differing(2), 1)
    assert deal.first.machine == "a"
    with pytest.raises(InvMMError, match=sentence):
        list(deal.measure(iter(targets(0))))


def test_a_worker_that_cannot_start_says_where_and_why() -> None:
    worker = Worker(Order("/no/such/folder").plan, "cpu", 1, None)
    with pytest.raises(InvMMError, match=r"A worker on \S+ cannot start: There is no folder /no/such/folder\."):
        worker.start()


def test_a_rank_serves_until_its_connection_is_closed() -> None:
    """It speaks JSON and safetensors alone."""
    for worker in (Worker(plan, "cpu", 2, None), Worker(Order("/no/such/folder").plan, "cpu", 2, None)):
        here, there = Pipe()
        thread = threading.Thread(target=spread._serve, args=(worker, there))
        thread.start()
        said = json.loads(here.recv_bytes())
        assert load(here.recv_bytes()) == {}
        if "ready" in said:
            assert said["ready"][0] == [1, 4, 4]
            here.send_bytes(json.dumps([[7, "a name", None]]).encode())
            here.send_bytes(save({"7": KNOWN[0]}))
            record = json.loads(here.recv_bytes())["result"]
            assert (record["index"], record["name"], record["digest"]) == (7, "a name", targets(0)[0].digest)
            assert load(here.recv_bytes())["noise.mu"].shape == (1, 4, 4)
        else:
            assert "no folder" in said["error"]
        here.close()
        thread.join(10)
        assert not thread.is_alive()


def test_ranks_find_the_same_and_all_of_it() -> None:
    pipes = [Pipe() for _ in range(2)]
    threads = [threading.Thread(target=spread._serve, args=(Worker(plan, "cpu", 2, None), there)) for _, there in pipes]
    for thread in threads:
        thread.start()
    asked = [Target(KNOWN[kind], f"\udcff {kind}", caption="été") for kind in (4, 0, 1, 0)]
    deal = Deal(spread._Ranks([here for here, _ in pipes]), 2)
    found = sorted(deal.measure(iter(asked)), key=lambda result: result.index)
    for here, _ in pipes:
        here.close()
    for thread in threads:
        thread.join(10)
    alone = sorted(plan().measure(asked), key=lambda result: result.index)
    assert deal.first.image_shape == (1, 4, 4)
    assert deal.first.config["seed"] == 0
    assert told(found) == told(alone)
    for mine, other in zip(found, alone, strict=True):
        assert mine.tensors().keys() == other.tensors().keys()
        assert all(torch.equal(mine.tensors()[name], tensor) for name, tensor in other.tensors().items())


def test_a_rank_that_dies_ends_the_run() -> None:
    (here, there), (other, _) = Pipe(), Pipe()
    crew = spread._Ranks([other, here])
    spread._tell(there, {"error": "It cannot start."}, {})
    with pytest.raises(InvMMError, match=r"It cannot start\."):
        crew.receive()
    there.close()
    with pytest.raises(InvMMError, match="Rank 1 died; what was finished is kept"):
        crew.receive()


class EndedError(Exception):
    """As Ray's errors of actors that died."""


class NoRay:
    """As much of Ray as a crew asks of it; its actors die when they start, after the first ``alive``."""

    exceptions = SimpleNamespace(RayTaskError=type("RayTaskError", (Exception,), {}), RayError=EndedError)

    def __init__(self, alive: int, resources: dict[str, float]) -> None:
        self.alive = alive
        self.resources = resources
        self.options: list[dict[str, Any]] = []
        self.threads: list[int | None] = []
        self.killed: list[object] = []

    def cluster_resources(self) -> dict[str, float]:
        return self.resources

    def remote(self, _: type) -> Any:
        def options(**chosen: Any) -> Any:
            self.options.append(chosen)
            return SimpleNamespace(remote=self.make)

        return SimpleNamespace(options=options)

    def make(self, *given: Any) -> Any:
        self.threads.append(given[-1])
        self.alive -= 1
        said = (
            Ready((1, 4, 4), CONFIG, "a") if self.alive >= 0 else EndedError("It died.\nNo module named 'invmm_eval'")
        )
        return Actor(SimpleNamespace(remote=lambda: Answer(said)))

    def wait(self, answers: list["Answer"]) -> tuple[list["Answer"], list["Answer"]]:
        return answers[:1], answers[1:]

    def get(self, answer: "Answer") -> object:
        if isinstance(answer.said, Exception):
            raise answer.said
        return answer.said

    def kill(self, actor: object) -> None:
        self.killed.append(actor)


@dataclass(eq=False)
class Actor:
    start: Any


@dataclass(eq=False)
class Answer:
    said: object


def test_workers_that_die_while_they_start_are_replaced_and_end_the_run_after_three() -> None:
    ray = NoRay(1, {"CPU": 2.0})
    crew = spread._Actors(ray, plan, 2, "cpu", 1, None)
    assert isinstance(crew.receive()[1], Ready)
    assert [crew.receive()[1] for _ in range(TRIES - 1)] == [None] * (TRIES - 1)
    with pytest.raises(InvMMError, match=r"3 workers died one after the other .* No module named 'invmm_eval'"):
        crew.receive()
    assert len(ray.killed) == TRIES
    crew.dismiss()
    assert len(ray.killed) == TRIES + 1


@pytest.mark.parametrize(
    ("resources", "device", "count", "asked", "threads"),
    [
        ({"CPU": 8.0}, None, 2, {"num_cpus": 4, "num_gpus": 0}, 4),
        ({"CPU": 2.0}, None, 3, {"num_cpus": 0.66, "num_gpus": 0}, 1),
        ({"CPU": 64.0, "GPU": 8.0}, None, 8, {"num_cpus": 8, "num_gpus": 1}, 8),
        ({"CPU": 64.0, "GPU": 8.0}, "cpu", 8, {"num_cpus": 8, "num_gpus": 0}, 8),
    ],
)
def test_each_worker_has_its_share_of_cores_or_a_gpu(
    resources: dict[str, float],
    device: str | None,
    count: int,
    asked: dict[str, float],
    threads: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ray = NoRay(count, resources)
    spread._Actors(ray, plan, count, device, 1, None)
    monkeypatch.delenv("OMP_NUM_THREADS")
    spread._Actors(ray, plan, count, device, 1, None)
    assert ray.options == [{**asked, "runtime_env": None}] * 2
    assert ray.threads == [None] * count + [threads] * count


def test_gpus_that_lack_are_told(caplog: pytest.LogCaptureFixture) -> None:
    spread._Actors(NoRay(2, {"CPU": 4.0, "GPU": 1.0}), plan, 2, "cuda", 1, None)
    assert "There are 1 GPUs for 2 workers" in caplog.text


def test_a_model_that_needs_captions_is_refused_by_workers_too(monkeypatch: pytest.MonkeyPatch) -> None:
    class Captioned(Mixture):
        def condition(self, caption: str | None = None) -> Condition:
            if caption is None:
                raise InvMMError("It needs captions.")
            return super().condition(caption)

    monkeypatch.setattr("invmm_eval.audits.auditing.load_backbone", lambda *_, **__: Captioned(KNOWN))
    order = Order("exact", choices={"similarity": "pixel-cosine"})
    assert Worker(order.plan, "cpu", 1, None).start().image_shape == (1, 4, 4)
    with pytest.raises(InvMMError, match=r"cannot start: It needs captions\."):
        Worker(partial(order.plan, captions=False), "cpu", 1, None).start()


def test_without_ray_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InvMMError, match=r"pip install 'invmm-eval\[ray\]'"):
        audit(MODEL, [KNOWN[0]], workers=2)


def test_what_lives_in_this_process_alone_is_not_sent() -> None:
    with pytest.raises(InvMMError, match="load the model themselves, so a Mixture cannot be sent"):
        audit(Mixture(KNOWN), [KNOWN[0]], workers=2)
    with pytest.raises(InvMMError, match="load the similarity themselves, so a PixelCosine cannot be sent"):
        audit(MODEL, [KNOWN[0]], workers=2, similarity=plan().similarity)


# Real processes: the reference model, of which a plugin makes some images deadly

RECIPE: dict[str, Any] = {"max_steps": 10, "check_every": 5, "draws": 2, "check_images": 2, "sampler_steps": 4}
PLUGIN = """
    import os
    import signal
    from pathlib import Path

    from invmm_eval.plugin import BackboneEntry, hookimpl
    from invmm_eval.search.target import Target

    def make(model, **how):
        from invmm_eval.models.ddpm import DDPM

        class Deadly(DDPM):
            def encode(self, images):
                digest = Target((images[0] * 255).round().byte().cpu()).digest
                if digest == os.environ.get("DEADLY_ALWAYS"):
                    os._exit(1)
                if digest == os.environ.get("DEADLY_ONCE") and not Path(os.environ["DEADLY_MARK"]).exists():
                    Path(os.environ["DEADLY_MARK"]).touch()
                    os.kill(os.getpid(), signal.SIGKILL)
                return super().encode(images)

        return Deadly(model, **how)

    @hookimpl
    def register_backbones():
        return {"deadly": BackboneEntry(make)}
"""
ray_is_there = pytest.mark.skipif(
    subprocess.run([sys.executable, "-c", "import ray"], capture_output=True, check=False).returncode != 0,
    reason="Ray is not installed",
)


def sources() -> list[Source]:
    """Known pictures and one that cannot be read."""
    return [*(Source(picture.code, picture.image) for picture in pictures()[:5]), Source("torn", b"no image")]


def digest(source: Source) -> str:
    return Target(prepare(source.value, (3, 32, 32))).digest


@pytest.fixture(scope="module")
def deadly(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An installed plugin, the backbone ``deadly``, for this process and those it starts."""
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "deadly.py").write_text(textwrap.dedent(PLUGIN))
    (folder / "deadly-1.0.dist-info").mkdir()
    (folder / "deadly-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: deadly\nVersion: 1.0\n")
    (folder / "deadly-1.0.dist-info" / "entry_points.txt").write_text("[invmm_eval]\ndeadly = deadly\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *filter(None, sys.path)]))
        host.cache_clear()
        yield folder
    host.cache_clear()


@pytest.fixture(scope="module")
def order(deadly: Path) -> Order:  # noqa: ARG001
    choices = {"similarity": "pixel-cosine", "recipe": "demo", "settings": RECIPE}
    return Order(MODEL, backbone="deadly", choices=choices)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def undisturbed(order: Order, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process finds, and names ``deadly`` in its config."""
    folder = tmp_path_factory.mktemp("undisturbed")
    list(order.run(sources(), device="cpu", out=folder, batch_size=1))
    assert read(folder).config["versions"]["deadly"] == "1.0"
    return folder


@ray_is_there
def test_workers_of_ray_find_the_same_though_one_is_killed_and_one_image_kills(
    order: Order, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray")
    asked = sources()
    monkeypatch.setenv("DEADLY_ALWAYS", digest(asked[1]))
    monkeypatch.setenv("DEADLY_ONCE", digest(asked[4]))
    monkeypatch.setenv("DEADLY_MARK", str(tmp_path / "killed"))
    monkeypatch.setattr(spread, "TRIES", 2)
    handler = signal.getsignal(signal.SIGTERM)
    found = list(order.run(asked, workers=2, device="cpu", out=tmp_path / "out", batch_size=2))
    assert sorted(result.index for result in found) == [*range(6)]
    assert (tmp_path / "killed").exists()
    here, there = rows(tmp_path / "out"), rows(undisturbed)
    assert here[1]["status"] == "failed"
    assert here[1]["error"].startswith("Its worker died 2 times")
    assert [*here[:1], *here[2:]] == [*there[:1], *there[2:]]
    tensors = sorted((tmp_path / "out").rglob("*.safetensors"))
    assert len(tensors) == 4
    for path in tensors:
        mine, other = Result.load(path), Result.load(undisturbed / path.relative_to(tmp_path / "out"))
        assert all(torch.equal(mine.noise[name], other.noise[name]) for name in other.noise)
        assert mine.check is not None
        assert other.check is not None
        assert all(torch.equal(mine.check.samples[scale], other.check.samples[scale]) for scale in other.check.samples)
    assert (tmp_path / "out" / "config.json").read_bytes() == (undisturbed / "config.json").read_bytes()
    assert signal.getsignal(signal.SIGTERM) is handler
    assert not ray.is_initialized()


def command(folder: Path, out: Path, *more: str) -> list[str]:
    settings = [f"--set={name}={value}" for name, value in RECIPE.items()]
    chosen = ["--backbone", "deadly", "--similarity", "pixel-cosine", "--recipe", "demo", "--device", "cpu"]
    asked = ["run", "--model", str(MODEL), "--images", str(folder), "--out", str(out), "--batch-size", "1"]
    return ["-m", "invmm_eval.cli", *asked, *chosen, *settings, *more]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for source in sources()[:5]:
        source.value.save(folder / f"{source.name}.png")  # type: ignore[union-attr]
    (folder / "torn.png").write_bytes(b"no image")
    return folder


def found_in(folder: Path) -> list[dict[str, Any]]:
    """The rows but for their order and what files are called."""
    left_out = ("index", "name", "error")
    by_pixels = sorted(rows(folder), key=lambda row: str(row["digest"]))
    return [{key: row[key] for key in row if key not in left_out} for row in by_pixels]


def children(process: int) -> set[int]:
    """All processes below one."""
    of = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            of[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
    below = {process}
    while more := {child for child, parent in of.items() if parent in below} - below:
        below |= more
    return below - {process}


def alive(process: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False


def wait_until(true: Any, seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while not (done := true()) and time.monotonic() < end:
        time.sleep(0.05)
    return bool(done)


@ray_is_there
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="There is no /proc, which tells what processes are left")
def test_an_interruption_leaves_no_process_and_one_process_goes_on(
    images: Path, undisturbed: Path, order: Order, tmp_path: Path
) -> None:
    run = subprocess.Popen(
        [sys.executable, *command(images, tmp_path / "out", "--workers", "1")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    results = tmp_path / "out" / "results.jsonl"
    wait_until(lambda: run.poll() is not None or (results.exists() and b"replicated" in results.read_bytes()), 300)
    started = children(run.pid)
    run.send_signal(signal.SIGTERM)
    out, err = run.communicate()
    assert (run.returncode, out) == (143, ""), err
    assert err.splitlines() == ["Stopped. Finished images are kept; run the same command again to resume."]
    assert started
    assert wait_until(lambda: not any(map(alive, started)))
    assert 0 < read(tmp_path / "out").progress.waiting < 6
    list(order.run([Source(path.name, path) for path in sorted(images.iterdir())], device="cpu", out=tmp_path / "out"))
    assert found_in(tmp_path / "out") == found_in(undisturbed)


@pytest.mark.usefixtures("deadly")
def test_ranks_of_torchrun_find_the_same_and_one_speaks(images: Path, undisturbed: Path, tmp_path: Path) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*launch, *command(images, tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("of 6 images were replicated; 1 failed.") == 1
    assert found_in(tmp_path) == found_in(undisturbed)
    assert (tmp_path / "results.jsonl").read_text().count("\n") == 6


def test_a_launcher_and_workers_are_not_asked_for_together(
    invoke: Invoke,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    code, _, err = invoke("run", "--model", "m", "--images", "i", "--out", str(tmp_path), "--workers", "2")
    assert code == 1
    assert "started this command as 2 processes already; leave --workers out" in err
