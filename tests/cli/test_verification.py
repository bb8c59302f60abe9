"""`invmm-eval verify`, and the signature of a manifest by a standard tool."""

import hashlib
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.helpers.audits import guided
from tests.helpers.command import Invoke

RUNS = (Path(__file__).parents[2] / "docs" / "runs.md").read_text(encoding="utf-8")


def test_an_exit_code_and_a_sentence_for_each_damage(invoke: Invoke, tmp_path: Path) -> None:
    folder = guided(tmp_path / "audit")
    digest = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    assert invoke("verify", folder) == (
        0,
        f"All files of {folder} are what the run wrote. The SHA-256 of manifest.json is {digest}.\n",
        "",
    )
    damaged, *_, lost = sorted(folder.glob("tensors/*/*"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    lost.unlink()
    code, out, err = invoke("verify", folder)
    assert (code, out, len(err.splitlines())) == (1, "", 3)
    assert f"{damaged} is not what the audit wrote: its SHA-256 differs." in err
    assert f"{lost} cannot be read" in err
    assert err.splitlines()[-1] == "Damages: 2."
    code, _, err = invoke("verify", tmp_path / "none")
    assert (code, err.count("\n")) == (1, 1)


@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="there is no ssh-keygen")
def test_the_documented_commands_sign_a_manifest_and_verify_the_signature(tmp_path: Path) -> None:
    folder = guided(tmp_path / "audit")
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    [block] = re.findall(r"^```sh\n(ssh-keygen.*?)^```", RUNS, re.MULTILINE | re.DOTALL)
    sign, allow, check = block.replace("~/.ssh/id_ed25519", str(key)).splitlines()

    def shell(command: str) -> int:
        return subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, check=False).returncode

    assert shlex.split(sign)[-1] == "audit/manifest.json"
    assert [shell(command) for command in (sign, allow, check)] == [0, 0, 0]
    (folder / "manifest.json").write_text((folder / "manifest.json").read_text() + " ")
    assert shell(check) != 0
