"""`hf invmm`, run by the real `hf`, and the skill that comes with the package."""

import os
import re
import subprocess
import sys
import tomllib
from datetime import UTC, datetime
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import yaml
from huggingface_hub import constants
from huggingface_hub.cli.extensions import ExtensionManifest

from tests.helpers.command import uncoloured
from tests.helpers.documents import ROOT, SKILL


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home in which `hf extensions install` put the console script `hf-invmm`, as pip writes it."""
    [script] = entry_points(group="console_scripts", name="invmm-eval")
    folder = tmp_path / ".local" / "share" / "hf" / "extensions" / "hf-invmm"
    executable = folder / "venv" / "bin" / "hf-invmm"
    executable.parent.mkdir(parents=True)
    executable.write_text(f"#!{sys.executable}\nfrom {script.module} import {script.attr}\n{script.attr}()\n")
    executable.chmod(0o755)
    ExtensionManifest("org", "hf-invmm", "org/hf-invmm", "invmm", str(executable), "python", datetime.now(UTC)).save(
        folder
    )
    return tmp_path


def hf(home: Path, *arguments: str) -> tuple[int, str, str]:
    environment = {"HOME": str(home), "PYTHONPATH": os.pathsep.join(sys.path), "HF_HUB_DISABLE_UPDATE_CHECK": "1"}
    done = subprocess.run(
        [sys.executable, "-c", "from huggingface_hub.cli.hf import main; main()", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, uncoloured(done.stdout), uncoloured(done.stderr)


def test_hf_runs_the_command_with_its_arguments_and_exit_code(home: Path) -> None:
    code, out, err = hf(home, "invmm", "verify", "--help")
    assert code == 0, err
    assert re.search(r"Usage: hf invmm verify .*DIR", out)
    code, out, err = hf(home, "invmm", "verify", str(home / "none"))
    assert (code, out) == (1, "")
    assert err.startswith(f"error {home / 'none'} holds no audit")


def test_the_package_declares_the_script_that_hf_looks_for() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]
    assert scripts["hf-invmm"] == scripts["invmm-eval"]


def test_the_skill_is_one_by_the_specification_and_stands_where_hf_installs_skills() -> None:
    file = ROOT / SKILL
    _, front, body = file.read_text("utf-8").split("---\n", 2)
    described = yaml.safe_load(front)
    assert described.keys() == {"name", "description"}
    assert described["name"] == file.parent.name
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", described["name"])
    assert len(described["description"]) <= 1024
    assert len(body.splitlines()) < 500
    assert file.parent.parent.relative_to(ROOT / "invmm_eval") == constants.AGENTS_SKILLS_LOCAL_PATH
