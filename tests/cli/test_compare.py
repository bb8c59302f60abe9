"""The command that compares two audits, on the reference model before and after a change of its weights."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import DDPMPipeline

from invmm_eval.reference import MODEL, pictures
from tests.helpers.command import SHARE, Invoke


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
        code, _, err = invoke(*command)
        assert code == 0, err
    code, out, err = invoke("compare", a, b, "--html", tmp_path / "page.html")
    assert code == 0, err
    assert "Of 2 pictures, 1 is memorized in A and 0 in B: 0 became memorized, 1 no longer is." in out
    assert f"Model: reference in A, {broken} in B." in out
    freed = next(line for line in out.splitlines() if "repeated.png" in line)
    assert "freed" in freed
    assert out.endswith(f"Wrote {tmp_path / 'page.html'}.\n")
    assert "repeated.png" in (tmp_path / "page.html").read_text("utf-8")
    code, out, err = invoke("compare", b, a, "--json")
    assert code == 0, err
    record = json.loads(out, parse_constant=lambda constant: pytest.fail(constant))
    assert record["counts"]["became"] == 1
    assert {row["name"]: row["change"] for row in record["pictures"]} == {
        "repeated.png": "became",
        "new.png": "neither",
    }
    code, _, err = invoke("compare", a, tmp_path / "pictures")
    assert code == 1
    assert err.startswith(f"error {tmp_path / 'pictures'} holds no audit that can be read")
