"""The commands that read folders: a comparison of two audits, a verification, and the signature of a manifest."""

import hashlib
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from diffusers import DDPMPipeline

from invmm_eval.reference import MODEL, pictures
from tests.helpers.audits import guided
from tests.helpers.command import SHARE, Invoke

RUNS = (Path(__file__).parents[2] / "docs" / "runs.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference model with its last layer set to zero: it has forgotten everything."""
    pipeline = DDPMPipeline.from_pretrained(MODEL)
    with torch.no_grad():
        for parameter in pipeline.unet.conv_out.parameters():
            parameter.zero_()
    folder = tmp_path_factory.mktemp("broken") / "model"
    pipeline.save_pretrained(folder)
    return folder


def test_what_a_change_of_the_model_did_is_told(invoke: Invoke, broken: Path, tmp_path: Path) -> None:
    known = pictures()
    (tmp_path / "pictures").mkdir()
    for name, picture in (("repeated.png", known[0]), ("new.png", known[-1])):
        picture.image.save(tmp_path / "pictures" / name)
    a, b = tmp_path / "a", tmp_path / "b"
    for model, folder in (("reference", a), (broken, b)):
        command = ["run", "--model", model, "--images", tmp_path / "pictures", "--out", folder, *SHARE]
        invoke.out(*command)
    out = invoke.out("compare", a, b, "--html", tmp_path / "page.html")
    assert "Of 2 images, 1 is memorized in A and 0 in B: 0 became memorized, 1 no longer is." in out
    assert f"Model: reference in A, {broken} in B." in out
    freed = next(line for line in out.splitlines() if "repeated.png" in line)
    assert "freed" in freed
    assert out.endswith(f"Wrote {tmp_path / 'page.html'}.\n")
    assert "repeated.png" in (tmp_path / "page.html").read_text("utf-8")
    out = invoke.out("compare", b, a, "--json")
    record = json.loads(out, parse_constant=lambda constant: pytest.fail(constant))
    assert record["counts"]["became"] == 1
    assert {row["name"]: row["change"] for row in record["images"]} == {
        "repeated.png": "became",
        "new.png": "neither",
    }
    code, _, err = invoke("compare", a, tmp_path / "pictures")
    assert code == 1
    assert err.startswith(f"error {tmp_path / 'pictures'} holds no audit that can be read")


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
