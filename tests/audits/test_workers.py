"""Many processes for one audit: the results are those of one, whatever dies."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import distributed
from torch.distributed.distributed_c10d import Store

from invmm_eval.audits.folder import read
from invmm_eval.audits.folder.scores import read_scores
from invmm_eval.audits.images import Source
from invmm_eval.audits.options import Choices, ModelOptions, Resources
from invmm_eval.audits.pictures import prepare
from invmm_eval.audits.plan import Plan, make_plan
from invmm_eval.audits.request import Request
from invmm_eval.audits.run import audit, run, worker_plan
from invmm_eval.audits.whole.audit import audit_set
from invmm_eval.audits.workers import actors, on_ray, on_torchrun, ranks
from invmm_eval.audits.workers.team import MakePlan, Ready, check_agreement
from invmm_eval.errors import InvMMError
from invmm_eval.models.condition import Condition
from invmm_eval.plugins.host import host
from invmm_eval.reference import MODEL, pictures
from invmm_eval.search.result import Result
from invmm_eval.search.search import Search
from invmm_eval.search.target import Target
from tests.audits.test_folder import rows
from tests.helpers.audits import planned, streamed
from tests.helpers.command import Invoke, install
from tests.helpers.exact import Mixture
from tests.helpers.exact import pictures as noise

KNOWN = noise(5)
SETTINGS = {"max_steps": 10, "check_every": 5, "draws": 2, "check_images": 2, "sampler_steps": 5}
CONFIG: dict[str, Any] = {"seed": 0, "versions": planned(Mixture(KNOWN)).config["versions"]}


NOWHERE = partial(worker_plan, partial(make_plan, ModelOptions(source="/no/such/folder"), Choices()), True)
"""The plan of a model that does not exist."""


def plan(device: str | None = None) -> Plan:
    """An audit of a model that knows all pictures but the last."""
    assert device in (None, "cpu")
    return planned(Mixture(KNOWN[:4]), similarity="pixel-cosine", recipe="paper", settings=SETTINGS)


def targets(*kinds: int) -> list[Target]:
    return [Target(KNOWN[kind], f"\udcff {kind}", caption="été") for kind in kinds]


def comparable(results: Iterable[Result]) -> list[dict[str, Any]]:
    """All but the times, by index, with the tensors' values."""
    return [
        {
            **replace(result, seconds_steps=0.0, seconds_checks=0.0).record(),
            "tensors": {name: tensor.tolist() for name, tensor in result.tensors().items()},
        }
        for result in sorted(results, key=lambda result: result.index)
    ]


# What a worker of Ray and the driver do, in this process


@pytest.mark.parametrize(("batch_size", "calls"), [(1, 1), (1, 3), (3, 3), (2, 5)])
def test_concurrent_calls_of_a_worker_give_the_results_of_one_process(batch_size: int, calls: int) -> None:
    images = targets(4, 0, 1, 2, 3)
    worker = on_ray.Worker(plan, Resources(device="cpu", batch_size=batch_size))
    assert worker.ready().image_shape == (1, 4, 4)
    with ThreadPoolExecutor(calls) as pool:
        found = [replace(result, index=index) for index, result in enumerate(pool.map(worker.measure, images))]
    assert comparable(found) == comparable(plan().measure(images, batch_size=1))


def test_a_worker_takes_the_next_image_as_soon_as_its_batch_has_a_place() -> None:
    together: list[list[str]] = []
    searching, all_arrived = threading.Event(), threading.Event()

    def record(searches: Sequence[Search]) -> None:
        searching.set()
        all_arrived.wait()
        together.append([search.target.name[-1] for search in searches])

    def recorded(device: str | None) -> Any:
        made = plan(device)
        measure = partial(made.measure, on_step=record)
        return SimpleNamespace(backbone=made.backbone, config=made.config, measure=measure)

    worker = on_ray.Worker(recorded, Resources(device="cpu", batch_size=2))
    worker.ready()
    with ThreadPoolExecutor(3) as pool:
        pool.submit(worker.measure, targets(4)[0])
        searching.wait()
        pool.map(worker.measure, targets(0, 0))
        while worker._calls.qsize() < 2:
            time.sleep(0.01)
        all_arrived.set()
    assert together == [["4"]] * 5 + [["4", "0"]] * 5 + [["0", "0"]] * 5 + [["0"]] * 5


def test_a_model_that_needs_captions_is_refused_by_workers_too(monkeypatch: pytest.MonkeyPatch) -> None:
    class Captioned(Mixture):
        def condition(self, caption: str | None = None) -> Condition:
            if caption is None:
                raise InvMMError("It needs captions.")
            return super().condition(caption)

    monkeypatch.setattr("invmm_eval.audits.plan.load", lambda *_: Captioned(KNOWN))
    made = partial(worker_plan, partial(make_plan, ModelOptions(source="exact"), Choices(similarity="pixel-cosine")))
    assert on_ray.Worker(partial(made, True), Resources(device="cpu")).ready().image_shape == (1, 4, 4)
    with pytest.raises(InvMMError, match=r"cannot start: It needs captions\."):
        on_ray.Worker(partial(made, False), Resources(device="cpu")).ready()


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"versions": {**CONFIG["versions"], "torch": "1.0"}}, "on b and the one on a differ in versions.torch;"),
        ({"versions": {**CONFIG["versions"], "invmm-ui": "1"}}, "on b and the one on a differ in versions.invmm-ui;"),
        ({"weights": "0" * 64}, "on b and the one on a differ in weights;"),
        ({"versions": {**CONFIG["versions"], "invmm-eval": "9.9"}}, "on b has invmm-eval 9.9; install 0"),
    ],
)
def test_workers_must_agree(config: dict[str, Any], sentence: str) -> None:
    first = Ready((1, 4, 4), CONFIG, "a")
    check_agreement(replace(first, machine="b"), first)
    with pytest.raises(InvMMError, match=sentence):
        check_agreement(Ready((1, 4, 4), {**CONFIG, **config}, "b"), first)


@pytest.mark.parametrize(
    ("cluster", "device", "workers", "cpus", "gpus"),
    [
        ({"CPU": 8.0}, None, 2, 4, 0),
        ({"CPU": 2.0}, None, 3, 0.66, 0),
        ({"CPU": 64.0, "GPU": 8.0}, None, 8, 8, 1),
        ({"CPU": 64.0, "GPU": 8.0}, "cpu", 8, 8, 0),
        ({"CPU": 4.0, "GPU": 1.0}, "cuda", 2, 2, 1),
    ],
)
def test_each_actor_has_its_share_of_cores_or_a_gpu_and_the_environment(
    cluster: dict[str, float],
    device: str | None,
    workers: int,
    cpus: float,
    gpus: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    expected = {"num_cpus": cpus, "num_gpus": gpus}
    assert on_ray.actor_options(cluster, workers, device) == {**expected, "runtime_env": None}
    monkeypatch.setenv("INVMM_SSCD_WEIGHTS", "/sscd.onnx")
    environment = {"env_vars": {"INVMM_SSCD_WEIGHTS": "/sscd.onnx"}}
    assert on_ray.actor_options(cluster, workers, device) == {**expected, "runtime_env": environment}
    assert ("has 1 GPUs for 2 workers" in caplog.text) == (device == "cuda")


def test_without_ray_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InvMMError, match=r"pip install 'invmm-eval\[ray\]'"):
        audit(MODEL, [KNOWN[0]], workers=2)


def test_what_lives_in_this_process_alone_is_not_sent() -> None:
    with pytest.raises(InvMMError, match="load the model themselves, so a Mixture cannot be sent"):
        audit(Mixture(KNOWN), [KNOWN[0]], workers=2)
    with pytest.raises(InvMMError, match="load the similarity themselves, so a PixelCosine cannot be sent"):
        audit(MODEL, [KNOWN[0]], workers=2, similarity=plan().similarity)


# Ranks, in threads


def memory() -> Store:
    """A store within this process."""
    store: Store = distributed.HashStore()  # type: ignore[attr-defined]
    return store


def started(pool: ThreadPoolExecutor, store: Store, make_plan: MakePlan) -> Iterator[on_torchrun.Message]:
    """The messages of a rank."""
    worker = pool.submit(on_torchrun._work, store, make_plan, Resources(device="cpu"))
    return on_torchrun._messages(store, worker, on_torchrun._Pulse(store, []))


def test_ranks_that_torchrun_did_not_start_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(InvMMError, match="start the script by torchrun"), on_torchrun.ranks(plan, Resources(), 1):
        pass


def test_a_rank_that_cannot_start_ends_the_run_with_its_reason() -> None:
    store = memory()
    with ThreadPoolExecutor(1) as pool:
        messages = started(pool, store, NOWHERE)
        with pytest.raises(InvMMError, match=r"A worker on \S+ cannot start: There is no folder"):
            next(messages)
        store.set("stopped", "")


def test_a_rank_that_falls_silent_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_torchrun, "BEAT", 0.02)
    monkeypatch.setattr(on_torchrun, "SILENCE", 0.5)
    store = memory()
    idle: Future[None] = Future()
    messages = on_torchrun._messages(store, idle, on_torchrun._Pulse(store, [1, 2]))
    with on_torchrun._beating(store, 1):
        with on_torchrun._beating(store, 2):
            threading.Timer(1.0, on_torchrun._put, (store, "message 1", {"late": True})).start()
            assert next(messages)[0] == {"late": True}, "the others beat"
        with pytest.raises(InvMMError, match=r"Rank 2 has given no sign of life for 0\.5 seconds.* again to resume"):
            next(messages)


def test_an_unexpected_error_of_the_thread_of_rank_0_ends_the_run() -> None:
    def broken(_: str | None) -> Plan:
        raise ZeroDivisionError

    with ThreadPoolExecutor(1) as pool, pytest.raises(ZeroDivisionError):
        next(started(pool, memory(), broken))


def test_a_run_of_ranks_exchanges_results_in_parts_and_can_be_stopped_and_made_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(on_torchrun, "PART", 100)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": 0, "WORLD_SIZE": 1}.items():
        monkeypatch.setenv(name, str(value))
    images, before = targets(4, 0, 1), threading.active_count()
    with ExitStack() as stack:
        stack.enter_context(pytest.raises(KeyboardInterrupt))
        team = stack.enter_context(ranks(plan, Resources(device="cpu", batch_size=1), 3))
        assert team
        next(team.measure(images))
        raise KeyboardInterrupt
    assert threading.active_count() == before
    with ranks(plan, Resources(device="cpu"), 3) as team:
        assert team
        assert comparable(team.measure(images)) == comparable(plan().measure(images))


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
                while digest == os.environ.get("DEADLY_ENDLESS"):
                    pass
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
    install(folder, "deadly", PLUGIN)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *filter(None, sys.path)]))
        host.cache_clear()
        yield folder
    host.cache_clear()


@pytest.fixture(scope="module")
def options(deadly: Path) -> dict[str, Any]:  # noqa: ARG001
    return {
        "backbone": "deadly",
        "similarity": "pixel-cosine",
        "recipe": "demo",
        "settings": RECIPE,
        "device": "cpu",
    }


@pytest.fixture(scope="module")
def undisturbed(options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process finds, and names ``deadly`` in its config."""
    folder = tmp_path_factory.mktemp("undisturbed")
    audit(MODEL, sources(), out=folder, batch_size=1, **options)
    assert read(folder).config["versions"]["deadly"] == "1.5"
    return folder


@ray_is_there
def test_workers_of_ray_find_the_same_though_one_is_killed_and_one_image_kills(
    options: dict[str, Any], undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of images that are read from a stream."""
    ray = pytest.importorskip("ray")
    asked = sources()
    stream = streamed(source.value for source in asked)
    monkeypatch.setenv("DEADLY_ALWAYS", digest(asked[1]))
    monkeypatch.setenv("DEADLY_ONCE", digest(asked[4]))
    monkeypatch.setenv("DEADLY_MARK", str(tmp_path / "killed"))
    handler = signal.getsignal(signal.SIGTERM)
    found = list(run(Request.of(MODEL, stream, workers=2, batch_size=2, **options), out=tmp_path / "out"))
    assert sorted(result.index for result in found) == [*range(6)]
    assert (tmp_path / "killed").exists()
    [died] = [row for row in rows(tmp_path / "out") if row["digest"] == digest(asked[1])]
    assert died["status"] == "failed"
    assert died["error"].startswith("The process that measured it died 3 times")
    here, there = (
        [row for row in found_in(folder) if row["digest"] != died["digest"]]
        for folder in (tmp_path / "out", undisturbed)
    )
    assert here == there
    assert len(here) == 5
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


@ray_is_there
@pytest.mark.parametrize(
    ("make_plan", "sentence"),
    [
        (NOWHERE, r"A worker on \S+ cannot start: There is no folder /no/such/folder"),
        (
            lambda _: os.kill(os.getpid(), signal.SIGKILL),
            "cannot be started, or died 2 times while it loaded the model",
        ),
    ],
)
def test_a_worker_of_ray_that_cannot_start_ends_the_run(
    make_plan: MakePlan, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_ray, "TRIES", 2)
    with pytest.raises(InvMMError, match=sentence), actors(make_plan, Resources(device="cpu", workers=1), 1):
        raise AssertionError


def command(folder: Path | str, out: Path, *more: str, verb: str = "run") -> list[str]:
    settings = [f"--set={name}={value}" for name, value in RECIPE.items()]
    chosen = ["--backbone", "deadly", "--similarity", "pixel-cosine", "--recipe", "demo", "--device", "cpu"]
    asked = [verb, "--model", str(MODEL), "--images", str(folder), "--out", str(out), "--batch-size", "1"]
    return ["-m", "invmm_eval", *asked, *chosen, *settings, *more]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for source in sources()[:5]:
        source.value.save(folder / f"{source.name}.png")  # type: ignore[union-attr]
    (folder / "torn.png").write_bytes(b"no image")
    return folder


def found_in(folder: Path) -> list[dict[str, Any]]:
    """The rows but for their order and what files are called."""
    left_out = ("index", "name", "error", "crc32")
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


def is_ours(process: int) -> bool:
    """Whether a process measures or manages; two agents of Ray, which hold nothing, end a minute after its raylet."""
    try:
        return b"Agent" not in Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return False


needs_proc = pytest.mark.skipif(
    not Path("/proc").is_dir(), reason="There is no /proc, which tells what processes are left"
)


@ray_is_there
@needs_proc
def test_an_interruption_leaves_no_process_and_one_process_goes_on(
    images: Path, undisturbed: Path, options: dict[str, Any], tmp_path: Path
) -> None:
    run = subprocess.Popen(
        [sys.executable, *command(images, tmp_path / "out", "--workers", "1")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    results = tmp_path / "out" / "results.jsonl"
    while run.poll() is None and not (results.exists() and b"replicated" in results.read_bytes()):
        time.sleep(0.05)
    started = children(run.pid)
    run.send_signal(signal.SIGTERM)
    out, err = run.communicate()
    assert (run.returncode, out) == (143, ""), err
    assert err.splitlines()[1:] == ["Stopped. Finished images are kept; run the same command again to resume."]
    assert started
    while any(map(alive, started)):
        time.sleep(0.05)
    assert 0 < read(tmp_path / "out").progress.waiting < 6
    audit(MODEL, [Source(path.name, path) for path in sorted(images.iterdir())], out=tmp_path / "out", **options)
    assert found_in(tmp_path / "out") == found_in(undisturbed)


LAUNCH = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@needs_proc
@pytest.mark.parametrize("way", [pytest.param("ray", marks=ray_is_there), "torchrun"])
def test_no_busy_process_outlives_the_driver_that_was_killed(
    way: str, images: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, endless, *_ = sorted(images.iterdir())
    monkeypatch.setenv("DEADLY_ENDLESS", digest(Source(endless.name, endless)))
    launch, more = ([], ["--workers", "1"]) if way == "ray" else (LAUNCH, [])
    with (tmp_path / "told").open("wb") as told:
        asked = [sys.executable, *launch, *command(images, tmp_path / "out", *more)]
        run = subprocess.Popen(asked, stdout=told, stderr=told)
    results = tmp_path / "out" / "results.jsonl"
    while run.poll() is None and not (results.exists() and b"replicated" in results.read_bytes()):
        time.sleep(0.05)
    started = [process for process in children(run.pid) if is_ours(process)]
    run.kill()
    assert run.wait() == -signal.SIGKILL, (tmp_path / "told").read_text()
    assert started
    while any(map(alive, started)):
        time.sleep(0.05)
    kept = [row for row in found_in(tmp_path / "out") if row["status"] != "failed"]
    assert kept
    assert all(row in found_in(undisturbed) for row in kept)


@pytest.mark.parametrize("way", [pytest.param("ray", marks=ray_is_there), "torchrun"])
def test_workers_find_the_same_in_a_whole_set_and_one_speaks(
    way: str, images: Path, options: dict[str, Any], tmp_path: Path
) -> None:
    """They screen it and search it, from a stream as from the folder."""
    launch, more = ([], ["--workers", "2"]) if way == "ray" else (LAUNCH, [])
    extent = {"control": 2, "clean": 2, "settings": {**RECIPE, "confirm": 2}}
    expected = audit_set(MODEL, images, out=tmp_path / "one", batch_size=1, **{**options, **extent})
    asked = command(
        f"stream:{images}",
        tmp_path / "many",
        "--control",
        "2",
        "--clean",
        "2",
        "--set",
        "confirm=2",
        *more,
        verb="audit",
    )
    done = subprocess.run([sys.executable, *launch, *asked], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Results are in") == done.stderr.count("Auditing") == 1
    assert expected
    assert found_in(tmp_path / "many") == found_in(tmp_path / "one")
    by_many, by_one = (
        [
            replace(score, seconds=0.0, name="", error=None)
            for _, score in sorted(read_scores(tmp_path / name)[1].items())
        ]
        for name in ("many", "one")
    )
    assert by_many == by_one


def test_a_launcher_and_workers_exclude_each_other(
    invoke: Invoke,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    code, _, err = invoke("run", "--model", "m", "--images", "i", "--out", str(tmp_path), "--workers", "2")
    assert code == 1
    assert "already runs as 2 processes of a launcher; leave --workers out" in err
