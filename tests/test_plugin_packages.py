"""The packages of ``plugins/``, installed for real: a new kind of model comes by installing alone."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from diffusers import ScoreSdeVePipeline, ScoreSdeVeScheduler, UNet2DModel

SCORE_SDE = Path(__file__).parents[1] / "plugins" / "invmm-score-sde"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small untrained pipeline of a class that the core does not know."""
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=8,
        time_embedding_type="fourier",
        block_out_channels=(8, 8),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
    )
    folder = tmp_path_factory.mktemp("model")
    ScoreSdeVePipeline(unet, ScoreSdeVeScheduler()).save_pretrained(folder, safe_serialization=True)
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the package is installed; its sources stay as they are."""
    folder = tmp_path_factory.mktemp("site")
    before = set(SCORE_SDE.rglob("*"))
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--target", str(folder)]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, str(SCORE_SDE)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert set(SCORE_SDE.rglob("*")) == before
    return folder


def run(code: str, *arguments: Path, path: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path), "INVMM_EVAL_STRICT": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_installed_package_serves_its_pipeline_class(site: Path, model: Path) -> None:
    code = """
        import json, sys
        from invmm_eval.plugins import host
        [plugin] = [plugin for plugin in host().plugins if plugin.name == "score-sde"]
        light = "torch" not in sys.modules

        import torch
        from invmm_eval.backbone import pipeline_class
        entry = host().backbone_for(pipeline_class(sys.argv[1]))
        backbone = entry.make(sys.argv[1], revision=None, device=torch.device("cpu"), dtype=torch.float32)
        estimate = backbone.predict_x0(torch.zeros(2, *backbone.image_shape), torch.tensor([0.5, 1.0]), {})
        print(json.dumps({
            "distribution": plugin.distribution,
            "gives": plugin.gives,
            "light": light,
            "named": entry is host().backbone("score-sde-ve"),
            "home": sys.modules[type(backbone).__module__].__file__,
            "image_shape": backbone.image_shape,
            "estimate": list(estimate.shape),
            "finite": bool(estimate.isfinite().all()),
        }))
    """
    done = run(code, model, path=[str(site), *sys.path])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "distribution": "invmm-score-sde",
        "gives": {"backbones": ["score-sde-ve"], "similarities": [], "noise_families": []},
        "light": True,
        "named": True,
        "home": str(site / "invmm_score_sde" / "backbone.py"),
        "image_shape": [3, 8, 8],
        "estimate": [2, 3, 8, 8],
        "finite": True,
    }
    assert (site / "invmm_score_sde" / "py.typed").is_file()


def test_without_the_package_the_class_is_unknown() -> None:
    code = """
        from invmm_eval.errors import InvMMError
        from invmm_eval.plugins import host
        try:
            host().backbone_for("ScoreSdeVePipeline")
        except InvMMError as error:
            print(error)
    """
    done = run(code, path=sys.path)
    assert "No backbone serves the pipeline class ScoreSdeVePipeline; install a plugin" in done.stdout, done.stderr
