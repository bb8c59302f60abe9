"""The command line: what it prints and where, its exit codes, and what it imports."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from invmm_eval.audits.auditing import audit
from invmm_eval.audits.store import Store, read
from invmm_eval.cli.commands import main, pairs, read_value
from invmm_eval.errors import InvMMError
from invmm_eval.plugins.host import host
from invmm_eval.reports.findings import whole

TINY = {"max_steps": 2, "check_every": 1, "draws": 2, "sampler_steps": 2, "check_images": 2}
SET = [part for key, value in TINY.items() for part in ("--set", f"{key}={value}")]
HEAVY = ("torch", "diffusers", "datasets", "evaluate")

Invoke = Callable[..., tuple[int, str, str]]


def uncoloured(text: str) -> str:
    """Usage and help are coloured on some services even where there is no terminal."""
    return re.sub(r"\x1b\[[\d;]*m", "", text)


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No colours, no weights of SSCD, and only the plugins that come along."""
    for variable in ("FORCE_COLOR", "TTY_COMPATIBLE", "INVMM_SSCD_WEIGHTS", "INVMM_EVAL_PLUGINS", "INVMM_EVAL_STRICT"):
        monkeypatch.delenv(variable, raising=False)
    host.cache_clear()
    yield
    host.cache_clear()


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Invoke:
    """Runs a command in this process: its exit code, what it printed, and what it printed on stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["invmm-eval", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        assert isinstance(stop.value.code, int)
        out, err = capsys.readouterr()
        return stop.value.code, uncoloured(out), uncoloured(err)

    return run


def python(code: str, *arguments: object, path: list[str] | None = None, **environment: str) -> tuple[int, str, str]:
    """Runs code in a process of its own: its exit code, what it printed, and what it printed on stderr."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path or sys.path), "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, uncoloured(done.stdout), uncoloured(done.stderr)


MAIN = "from invmm_eval.cli import main; main()"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    (tmp_path / "images").mkdir()
    for name, image in zip(("a.png", "b.png"), pixels, strict=True):
        Image.fromarray(image).save(tmp_path / "images" / name)
    return tmp_path / "images"


def lines(folder: Path) -> list[dict[str, Any]]:
    read = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    return sorted(read, key=lambda row: row["index"])


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], ["--version"], ["plugins"], ["plugins", "--json"]]
)
def test_light_commands_import_nothing_heavy(arguments: list[str]) -> None:
    script = f"""
        import sys
        from invmm_eval.cli.commands import main
        try:
            main()
        finally:
            print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)
    """
    code, out, err = python(script, *arguments)
    assert (code, err) == (0, "[]\n")
    assert out


def test_help(invoke: Invoke) -> None:
    code, out, err = invoke("--help")
    assert (code, err) == (0, "")
    assert "Has this diffusion model memorized this image?" in out
    assert all(f" {command} " in out for command in ("run", "status", "demo", "plugins", "register", "card", "push"))


def test_the_version(invoke: Invoke) -> None:
    assert invoke("--version") == (0, f"invmm-eval {version('invmm-eval')}\n", "")


def test_plugins(invoke: Invoke) -> None:
    code, out, err = invoke("plugins")
    assert (code, err) == (0, "")
    names = ("builtin", "invmm-eval", "ddpm", "sscd", "pixel-cosine", "ssim", "diagonal-gaussian", "low-rank-gaussian")
    assert all(name in out for name in names)


def test_plugins_as_json(invoke: Invoke) -> None:
    code, out, err = invoke("plugins", "--json")
    assert (code, err) == (0, "")
    listing = json.loads(out)
    assert listing.keys() == {"plugins", "broken"}
    [builtin] = [plugin for plugin in listing["plugins"] if plugin["name"] == "builtin"]
    assert set(builtin.pop("hooks")) == {"register_backbones", "register_similarities", "register_noise_families"}
    assert builtin == {
        "name": "builtin",
        "distribution": "invmm-eval",
        "version": version("invmm-eval"),
        "gives": {
            "backbones": ["ddpm", "latent", "stable-diffusion"],
            "similarities": ["sscd", "pixel-cosine", "ssim"],
            "noise_families": ["diagonal-gaussian", "isotropic-gaussian", "low-rank-gaussian"],
        },
    }


@pytest.fixture
def broken(tmp_path: Path) -> list[str]:
    """The path of a process where a plugin is installed that does not work."""
    (tmp_path / "faulty.py").write_text("import a_library_that_is_not_there")
    info = tmp_path / "faulty-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.4\nName: faulty\nVersion: 1.5\n")
    (info / "entry_points.txt").write_text("[invmm_eval]\nthe-faulty = faulty\n")
    return [str(tmp_path), *sys.path]


def test_a_broken_plugin_is_told_once_and_the_others_are_listed(broken: list[str]) -> None:
    code, out, err = python(MAIN, "plugins", path=broken)
    assert code == 0
    assert "pixel-cosine" in out
    assert "faulty" not in out
    assert err.count("'the-faulty' (faulty 1.5) does not work") == 1
    assert "a_library_that_is_not_there" in err
    assert "Traceback" not in err


def test_a_broken_plugin_is_in_the_json(broken: list[str]) -> None:
    code, out, _ = python(MAIN, "plugins", "--json", path=broken)
    assert code == 0
    [told] = json.loads(out)["broken"]
    assert "a_library_that_is_not_there" in told.pop("cause")
    assert told == {"name": "the-faulty", "distribution": "faulty", "version": "1.5"}


def test_where_plugins_must_work_a_broken_one_is_an_error(broken: list[str]) -> None:
    code, out, err = python(MAIN, "plugins", path=broken, INVMM_EVAL_STRICT="1")
    assert (code, out) == (1, "")
    assert re.fullmatch("error The plugin 'the-faulty' .*a_library_that_is_not_there.*\n", err)


def test_an_error_may_be_traced(broken: list[str]) -> None:
    code, out, err = python(MAIN, "--debug", "plugins", path=broken, INVMM_EVAL_STRICT="1")
    assert (code, out) == (1, "")
    assert "Traceback (most recent call last)" in err
    assert err.splitlines()[-1].startswith("invmm_eval.errors.InvMMError: The plugin 'the-faulty'")


def test_captions_lie_beside_the_images(
    invoke: Invoke, tiny_stable_diffusion_folder: Path, images: Path, tmp_path: Path
) -> None:
    for name, text in (("a", "a red cat\n"), ("b", "the blue heart")):
        (images / f"{name}.txt").write_text(text)
    command = [*("run", "--model", tiny_stable_diffusion_folder, "--images", images, "--out", tmp_path / "out"), *SET]
    told = [*command, "--backbone-option", "prompt_mode=caption"]
    code, out, err = invoke(*told)
    assert (code, out) == (1, "")
    assert err.endswith("needs a caption for each image; name them with captions= or --captions.\n")
    assert not (tmp_path / "out").exists()
    code, _, err = invoke(*told, "--captions", ".txt")
    assert code == 0, err
    rows = read(tmp_path / "out").rows
    assert [row["caption"] for row in rows] == [row["prompt"] for row in rows] == ["a red cat", "the blue heart"]


def test_a_run(
    invoke: Invoke, tiny_folder: Path, images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out_folder = tmp_path / "out"
    command = ["run", "--model", tiny_folder, "--images", images, "--out", out_folder, *SET]
    code, out, err = invoke(*command)
    assert code == 0
    table = [[cell.strip() for cell in line.split("│")] for line in out.splitlines() if line.startswith("│")]
    assert sorted(row[1:4] for row in table) == [["a.png", "not replicated", "∞"], ["b.png", "not replicated", "∞"]]
    assert out.splitlines()[-3:] == [
        "0 of 2 images were replicated; 0 failed.",
        whole(0, 2),
        f"Results are in {out_folder}.",
    ]
    assert "compared by pixel-cosine: fair up to 64 pixels a side" in caplog.text
    assert "Traceback" not in err
    assert {path.name for path in out_folder.iterdir()} == {
        *(".lock", "config.json", "images.json", "results.jsonl", "samples", "tensors")
    }
    expected = audit(tiny_folder, images, settings=TINY)
    assert [(row["name"], row["kl"]) for row in lines(out_folder)] == [(found.name, found.kl) for found in expected]
    assert [len(list((out_folder / part).glob("??/*"))) for part in ("tensors", "samples")] == [2, 2]

    written = {path: path.stat().st_mtime_ns for path in out_folder.glob("*/*/*")}
    rows = lines(out_folder)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(images / "c.png")
    code, again, _ = invoke(*command)
    assert code == 0
    assert "0 of 3 images were replicated; 0 failed." in again
    assert lines(out_folder)[:2] == rows
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert [row["name"] for row in lines(out_folder)] == ["a.png", "b.png", "c.png"]


def test_the_status_of_an_audit(invoke: Invoke, tiny_folder: Path, images: Path, tmp_path: Path) -> None:
    out_folder = tmp_path / "out"
    (images / "c.png").write_bytes(b"no image")
    invoke("run", "--model", tiny_folder, "--images", images, "--out", out_folder, *SET)
    code, out, err = invoke("status", out_folder)
    assert (code, err) == (0, "")
    told, rate = out.splitlines()
    assert told == "2 of 3 images are done: 0 replicated, 2 not replicated; 1 failed, 0 are waiting."
    assert re.fullmatch(r"It is not running, and went at [\d,.]+ images an hour; the same .* with it\.", rate)

    with Store(out_folder, json.loads((out_folder / "config.json").read_text()), ["a.png", "b.png", "c.png", "d.png"]):
        _, out, _ = invoke("status", out_folder)
    told, rate = out.splitlines()
    assert told.endswith("1 failed, 1 are waiting.")
    assert rate == "It is running."

    damaged = next((out_folder / "tensors").glob("*/*"))
    assert invoke("status", out_folder, "--verify")[0] == 0
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"!")
    code, out, err = invoke("status", out_folder, "--verify")
    assert (code, out.splitlines()[-1]) == (1, "Damaged files of tensors: 1.")
    assert f"{damaged} is not what the audit wrote" in err


def test_a_long_table_shows_the_most_memorized(
    invoke: Invoke, tiny_folder: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("invmm_eval.cli.commands.SHOWN", 1)
    code, out, _ = invoke("run", "--model", tiny_folder, "--images", images, "--out", tmp_path / "out", *SET)
    assert code == 0
    assert "a.png" in out
    assert "These are the 1 most memorized of 2." in out
    assert "0 of 2 images were replicated; 0 failed." in out


def test_every_option_of_a_run_arrives(invoke: Invoke, tiny_folder: Path, images: Path, tmp_path: Path) -> None:
    code, _, err = invoke(
        *("run", "--model", tiny_folder, "--images", images / "b.png", "--images", images, "--out", tmp_path / "out"),
        *("--revision", "v1", "--backbone", "ddpm", "--similarity", "ssim", "--noise", "low-rank-gaussian"),
        *("--noise-option", "rank=2", "--recipe", "demo", "--seed", "3", "--batch-size", "1", "--micro-batch", "1"),
        *("--device", "cpu", "--dtype", "float32", *SET, "--set", "threshold=0.75"),
    )
    assert code == 0
    assert "pixel-cosine" not in err
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["model"] == f"{tiny_folder}@v1"
    assert config["similarity"]["name"] == "ssim"
    assert config["noise"] == {"name": "low-rank-gaussian", "rank": 2}
    assert config["seed"] == 3
    recipe = config["recipe"]
    assert {key: recipe[key] for key in (*TINY, "threshold")} == {**TINY, "threshold": 0.75}
    assert recipe["name"].startswith("demo with ")
    names = [row["name"] for row in lines(tmp_path / "out")]
    assert names == [(images / "b.png").as_posix(), "a.png", "b.png"]
    expected = audit(
        tiny_folder,
        [images / "b.png", *sorted(images.iterdir())],
        recipe="demo",
        settings={**TINY, "threshold": 0.75},
        similarity="ssim",
        noise="low-rank-gaussian",
        noise_options={"rank": 2},
        seed=3,
        micro_batch=1,
    )
    assert [row["kl"] for row in lines(tmp_path / "out")] == [found.kl for found in expected]


def test_an_option_of_the_similarity_arrives(invoke: Invoke, tiny_folder: Path, images: Path, tmp_path: Path) -> None:
    weights = tmp_path / "no-sscd.onnx"
    weights.write_bytes(b"")
    code, _, err = invoke(
        *("run", "--model", tiny_folder, "--images", images, "--out", tmp_path / "out", "--similarity", "sscd"),
        *("--similarity-option", f"weights={weights}", "--similarity-option", "sha256=abc"),
    )
    assert code == 1
    assert f"{weights} has the SHA-256" in err


def test_named_weights_of_sscd_are_taken(
    invoke: Invoke, tiny_folder: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INVMM_SSCD_WEIGHTS", str(tmp_path / "gone.onnx"))
    code, _, err = invoke("run", "--model", tiny_folder, "--images", images, "--out", tmp_path / "out")
    assert code == 1
    assert err.splitlines()[-1].startswith(f"error SSCD's weights {tmp_path / 'gone.onnx'} cannot be read")
    assert "pixel-cosine" not in err


ERRORS: dict[str, tuple[list[str], str]] = {
    "model": (["--model", "./nowhere[/x]"], r"There is no folder \./nowhere\[/x\]\."),
    "images": (["--images", "nowhere[red]"], r"The file or folder 'nowhere\[red\]' cannot be opened: .*"),
    "setting": (["--set", "speed=3"], "'speed=3' is not KEY=VALUE with KEY one of averaging, check_every, .*"),
    "value": (["--set", "draws=many"], "'many' is no value for the recipe's draws."),
    "option": (["--noise-option", "rank"], "'rank' is not KEY=VALUE."),
    "noise": (["--noise", "gauss"], "There is no noise family 'gauss'.*"),
    "similarity": (["--similarity", "sim"], r"There is no similarity 'sim'.*"),
    "backbone": (["--backbone", "dpm"], r"There is no backbone 'dpm' \(did you mean 'ddpm'\?\).*"),
    "recipe": (["--recipe", "own"], "There is no recipe 'own'; take one of paper, dose, demo."),
    "device": (["--device", "gpu"], "The device 'gpu' cannot be used here.*"),
    "dtype": (["--dtype", "int8"], "There is no precision 'int8'.*"),
    "out": (["--out", "file"], r"The folder file cannot be used: .*"),
}


@pytest.mark.parametrize("mistake", ERRORS)
def test_a_mistake_is_told_in_one_sentence(
    mistake: str, invoke: Invoke, tiny_folder: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    arguments, told = ERRORS[mistake]
    given = {"--model": tiny_folder, "--images": images, "--out": "out"}
    rest = [part for key, value in given.items() if key not in arguments for part in (key, value)]
    code, out, err = invoke("run", *rest, *arguments)
    assert (code, out) == (1, "")
    *_, last = err.splitlines()
    assert re.fullmatch(f"error {told}", last)
    assert "Traceback" not in err


def test_settings_are_read_before_anything_is_loaded(invoke: Invoke, images: Path, tmp_path: Path) -> None:
    _, _, err = invoke("run", "--model", "./gone", "--images", images, "--out", tmp_path, "--set", "speed=3")
    assert "speed=3" in err


def test_a_run_where_all_images_fail_is_an_error(invoke: Invoke, tiny_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "[red]images"
    for name in ("[a].png", "[/].png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"no image")
    out_folder = tmp_path / "[bold]out"
    code, out, err = invoke("run", "--model", tiny_folder, "--images", folder, "--out", out_folder, *SET)
    assert code == 1
    assert "[a].png" in out
    assert "[/].png" in out
    assert out.splitlines()[-2:] == ["0 of 2 images were replicated; 2 failed.", f"Results are in {out_folder}."]
    assert err.splitlines()[-1].startswith("error No image could be measured; the first error: The image '")
    assert str(folder) in err
    assert [row["status"] for row in lines(out_folder)] == ["failed", "failed"]


def test_a_run_where_one_image_fails_is_none(invoke: Invoke, tiny_folder: Path, images: Path, tmp_path: Path) -> None:
    (images / "c.png").write_bytes(b"no image")
    code, out, _ = invoke("run", "--model", tiny_folder, "--images", images, "--out", tmp_path / "out", *SET)
    assert code == 0
    assert "0 of 3 images were replicated; 1 failed." in out
    assert whole(0, 2) in out


def test_another_audit_in_the_folder_is_refused(
    invoke: Invoke, tiny_folder: Path, images: Path, tmp_path: Path
) -> None:
    command = ["run", "--model", tiny_folder, "--images", images, "--out", tmp_path / "out", *SET]
    assert invoke(*command)[0] == 0
    code, out, err = invoke(*command, "--seed", "1")
    assert (code, out) == (1, "")
    assert "holds an audit that differs in seed; name another folder" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["run"],
        ["walk"],
        ["run", "--model", "m"],
        ["run", "--speed", "3"],
        ["run", "--batch-size", "0"],
        ["run", "--debug"],
    ],
)
def test_wrong_usage(arguments: list[str], invoke: Invoke) -> None:
    code, out, err = invoke(*arguments)
    assert (code, out) == (2, "")
    assert "Usage: invmm-eval" in err


@pytest.mark.parametrize(("sent", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_keeps_what_is_finished(
    sent: signal.Signals, expected: int, tiny_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "images").mkdir()
    for value in range(40):
        Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(tmp_path / "images" / f"{value}.png")
    out_folder = tmp_path / "out"
    arguments = ["run", "--model", tiny_folder, "--images", tmp_path / "images", "--out", out_folder, *SET]
    code = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler); {MAIN}"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments), "--set", "max_steps=50", "--batch-size", "1"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    results = out_folder / "results.jsonl"
    while process.poll() is None and not (results.exists() and results.read_bytes()):
        time.sleep(0.01)
    process.send_signal(sent)
    out, err = process.communicate()
    assert (process.returncode, out) == (expected, ""), err
    assert err.splitlines()[-1] == "Stopped. What was finished is kept; the same command goes on from there."
    assert "Traceback" not in err
    assert 0 < len(lines(out_folder)) < 40


def test_the_metric_is_registered_and_removed(tmp_path: Path) -> None:
    code = """
        import sys
        from invmm_eval.cli.commands import main
        for arguments in (["register"], ["register", "--remove"], ["register", "--remove"]):
            sys.argv[1:] = arguments
            try:
                main()
            except SystemExit as stop:
                print(stop.code)
    """
    home = tmp_path / "a home whose name is so long that a line of a terminal would not hold it at all"
    status, out, err = python(code, HF_HOME=str(home))
    assert (status, err) == (0, "")
    registered, hint, first, removed, second, nothing, third = out.splitlines()
    assert (first, second, third) == ("0", "0", "0")
    place = registered.removeprefix('evaluate.load("invmm") now finds ')
    assert Path(place).is_relative_to(home)
    assert "HF_EVALUATE_OFFLINE=1" in hint
    assert removed == f"Removed {place}."
    assert nothing == "The metric was not registered."
    assert not [path for path in home.rglob("*") if "invmm" in path.name]


def test_pairs() -> None:
    assert pairs(["side=64", "xi=1e-3", "weights=a=b.onnx", "my-key=-2", "empty="]) == {
        "side": 64,
        "xi": 0.001,
        "weights": "a=b.onnx",
        "my_key": -2,
        "empty": "",
    }
    with pytest.raises(InvMMError, match="'side' is not KEY=VALUE"):
        pairs(["side"])


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("3", 3),
        ("3.0", 3.0),
        ("three", "three"),
        ("0x10", "0x10"),
        ("true", True),
        ("False", False),
        ("falsely", "falsely"),
    ],
)
def test_values(text: str, read: object) -> None:
    assert read_value(text) == read
    assert type(read_value(text)) is type(read)
