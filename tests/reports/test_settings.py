"""The settings of an audit in words, and the command that repeats it."""

from dataclasses import asdict
from pathlib import Path

from invmm_eval.recipe import STABLE_DIFFUSION, by_dose
from invmm_eval.reports import report
from invmm_eval.reports.findings import Findings, find
from tests.helpers import audits


def test_settings_are_in_words(found: Findings, tmp_path: Path) -> None:
    settings = found.settings
    assert settings["Model"] == "org/painter@v1.0"
    assert settings["Similarity"].startswith("sscd (threshold 0.5, sha256 aaaa")
    assert settings["Noise family"] == "low-rank-gaussian (rank 2)"
    assert settings["Check"].startswith("passed if all 8 samples at one guidance scale reach a similarity of 0.5; ")
    assert settings["Check"].endswith("guidance 1, 3, 7")
    assert "Doses" not in settings
    config = {**audits.CONFIG, "recipe": asdict(by_dose(STABLE_DIFFUSION))}
    assert find(audits.write(tmp_path, [], config)).settings["Doses"] == (
        "from 2 nats, times 2 after each failed check; 64 samples for the curve, InvMM read at 95 %"
    )


def test_a_model_is_named_with_what_was_added_to_it(found: Findings, tmp_path: Path) -> None:
    assert found.model == "org/painter@v1.0"
    lora = {"file": "style.safetensors", "weight": 0.8, "sha256": "b" * 64}
    token = {"file": "cat.safetensors", "token": "<cat>", "sha256": "c" * 64}
    added = find(audits.write(tmp_path, [], {**audits.CONFIG, "loras": [lora], "embeddings": [token]}))
    assert added.model == "org/painter@v1.0 with style.safetensors, cat.safetensors"
    written = report(tmp_path).read_text("utf-8")
    assert f"<title>Memorization audit of {added.model}</title>" in written
