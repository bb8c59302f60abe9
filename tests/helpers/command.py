"""The command line in tests: run it in this process or in one of its own, on a tiny audit."""

import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from invmm_eval.audits.plan import _warn_without_sscd
from invmm_eval.cli.app import main
from invmm_eval.plugins.host import host

TINY = {"max_steps": 2, "check_every": 1, "draws": 2, "sampler_steps": 2, "check_images": 2, "plain": 8}
SET = [part for key, value in TINY.items() for part in ("--set", f"{key}={value}")]
_COUNTED = {**TINY, "max_steps": 1, "sampler_steps": 6, "threshold": 0.9, "estimators": "plain-share", "plain": 32}
SHARE = ["--recipe", "demo", *(part for key, value in _COUNTED.items() for part in ("--set", f"{key}={value}"))]
"""Of the reference model the share of plain samples alone: the first picture is 1 in 5 of them."""


def printed(shown: Any, width: int, **how: Any) -> str:
    """What a console of some columns shows of a table."""
    file = StringIO()
    Console(file=file, width=width, **how).print(shown)
    return file.getvalue()


def uncoloured(text: str) -> str:
    """Usage and help are coloured on some services even where there is no terminal."""
    return re.sub(r"\x1b\[[\d;]*m", "", text)


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No colours, no weights of SSCD, and no setting of plugins in the environment."""
    for variable in ("FORCE_COLOR", "TTY_COMPATIBLE", "INVMM_SSCD_WEIGHTS", "INVMM_EVAL_PLUGINS", "INVMM_EVAL_STRICT"):
        monkeypatch.delenv(variable, raising=False)
    host.cache_clear()
    _warn_without_sscd.cache_clear()
    yield
    host.cache_clear()


class Invoke:
    """Runs commands in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        """The exit code of a command, what it printed, and what it printed on stderr."""
        self._monkeypatch.setattr(sys, "argv", ["invmm-eval", *map(str, arguments)])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        assert isinstance(stop.value.code, int)
        out, err = self._capsys.readouterr()
        return stop.value.code, uncoloured(out), uncoloured(err)

    def out(self, *arguments: object) -> str:
        """What a command printed that succeeds."""
        code, out, err = self(*arguments)
        assert code == 0, err
        return out


@pytest.fixture
def invoke(plain: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Invoke:  # noqa: ARG001
    return Invoke(monkeypatch, capsys)


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
_SEVERAL = """
import json, sys
from invmm_eval.cli import main
for sys.argv[1:] in json.loads(sys.argv[1]):
    try:
        main()
    except SystemExit as stop:
        if stop.code:
            raise
        print(end="\\0", flush=True)
"""


def several(*commands: Iterable[object], path: list[str] | None = None, **environment: str) -> list[str]:
    """Runs commands that succeed, one after the other in one process of its own: what each printed."""
    words = json.dumps([list(map(str, command)) for command in commands])
    code, out, err = python(_SEVERAL, words, path=path, **environment)
    assert code == 0, err
    return out.split("\0")[:-1]


def install(folder: Path, distribution: str, source: str, entry_point: str | None = None) -> str:
    """Write a distribution of version 1.5 whose one module is a plugin, as an installer would; returns its module."""
    module = distribution.replace("-", "_")
    (folder / f"{module}.py").write_text(textwrap.dedent(source), encoding="utf-8")
    info = folder / f"{module}-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {distribution}\nVersion: 1.5\n", encoding="utf-8")
    points = f"[invmm_eval]\n{entry_point or distribution} = {module}\n"
    (info / "entry_points.txt").write_text(points, encoding="utf-8")
    return module


@pytest.fixture
def broken(tmp_path: Path) -> list[str]:
    """The path of a process in which a plugin is installed that does not work."""
    install(tmp_path, "faulty", "import a_library_that_is_not_there", "the-faulty")
    return [str(tmp_path), *sys.path]


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
