"""The scripts and commands of docs/runs.md for audits in shards: by SLURM, and by the Jobs of the Hub."""

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement

from tests.helpers.command import SET, Invoke, lines
from tests.helpers.documents import ROOT, blocks

COMMANDS = [
    line for block in blocks(ROOT / "docs" / "runs.md") if block.language == "sh" for line in block.text.splitlines()
]
BIN = Path(sys.executable).parent


def shell(command: str, **environment: str) -> str:
    paths = {"PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    done = subprocess.run(
        ["bash", "-c", command],
        env={**os.environ, **paths, "OMP_NUM_THREADS": "1", **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_tasks_of_an_array_and_jobs_of_the_hub_audit_a_set_together(
    invoke: Invoke, tiny_folder: Path, images: Path, tmp_path: Path
) -> None:
    """Task 1 is the SLURM script as SLURM starts it, task 2 the script of the Jobs: they write the same folders."""
    [array] = [line for line in COMMANDS if line.startswith("sbatch")]
    arguments = ["--model", str(tiny_folder), "--images", str(images), "--recipe", "demo", *SET]
    _, numbers, script, _, _, *rest = array.split()
    assert (numbers, rest) == ("--array=1-64", ["--model", "MODEL", "--images", "IMAGES"])
    shell(" ".join(["bash", script, "2", str(tmp_path / "audit"), *arguments]), SLURM_ARRAY_TASK_ID="1")
    shell(" ".join([sys.executable, "examples/audit_shard.py", "2/2", str(tmp_path / "audit"), *arguments]))
    invoke.out("merge", tmp_path / "merged", *sorted((tmp_path / "audit").glob("shard-*")))
    assert [row["name"] for row in lines(tmp_path / "merged")] == ["a.png", "b.png"]


def test_the_hub_would_be_given_a_job_for_each_shard() -> None:
    """By the dry run of its own command, which needs no network."""
    [loop] = [line for line in COMMANDS if "hf jobs" in line]
    assert loop.startswith("for k in $(seq 64); do ")
    told = shell(loop.replace("seq 64", "seq 2").replace("uv run ", "uv run --dry-run ").replace("ORG", "org"))
    assert [line.split()[1:3] for line in told.splitlines() if line.split()[:1] == ["args"]] == [
        ["1/64", "/audit"],
        ["2/64", "/audit"],
    ]
    assert told.count("hf://buckets/org/BUCKET:/audit") == 2


def test_the_metadata_of_the_script_are_those_of_the_package() -> None:
    script = (ROOT / "examples" / "audit_shard.py").read_text("utf-8")
    block = re.search(r"^# /// script\n((?:# .*\n)+)# ///$", script, re.M)
    assert block
    metadata = tomllib.loads(re.sub(r"^# ", "", block[1], flags=re.M))
    [needed] = map(Requirement, metadata["dependencies"])
    package = distribution(needed.name)
    assert needed.specifier.contains(package.version)
    assert metadata["requires-python"] == package.metadata["Requires-Python"]
