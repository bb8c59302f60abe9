"""From names to results: which parts are found, what is recorded, and how a set of results is told."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from diffusers import DDIMPipeline
from PIL import Image
from torch import Tensor

from invmm_eval.audits.options import Resources
from invmm_eval.audits.pictures import Source
from invmm_eval.audits.plan import load_backbone, model_name
from invmm_eval.audits.run import audit
from invmm_eval.errors import InvMMError
from invmm_eval.models.ddpm import DDPM
from invmm_eval.noise import NoiseFamily
from invmm_eval.noise.gaussian import diagonal
from invmm_eval.plugins.hooks import EstimatorMaker, NoiseFamilyMaker, SimilarityMaker, hookimpl, lazy
from invmm_eval.plugins.host import host
from invmm_eval.recipe import DDPM as PAPER_DDPM
from invmm_eval.recipe import DEMO, Recipe, fast
from invmm_eval.search.estimators import Found
from invmm_eval.search.result import Status
from invmm_eval.similarity.pixel_cosine import PixelCosine
from tests.helpers.audits import planned, run_plan
from tests.helpers.command import TINY
from tests.helpers.exact import QUICK, Mixture, pictures, serving

MEMORIZED = pictures(3)
UNSEEN = pictures(1, seed=99)
SHORT: dict[str, Any] = {"max_steps": 80, "check_every": 5, "draws": 8, "plain": 8}


class Strict:
    """A similarity with a setting, that nothing passes or all."""

    name = "strict"

    def __init__(self, *, device: torch.device, threshold: float = 2.0) -> None:
        self.device = device
        self.threshold = threshold
        self.settings: Mapping[str, str | int | float | None] = {"of": "tests", "side": None}

    def embed(self, images: Tensor) -> Tensor:
        return images.flatten(1)

    def compare(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.ones(len(a), len(b))


class Copies:
    """An estimator: the number of copies among four samples."""

    name = "copies"
    fields: Mapping[str, str] = {"hits": "copies among four samples"}

    async def __call__(self, found: Found) -> Mapping[str, Any]:
        return {"hits": sum((await found.sample(4)).hits)}


class Parts:
    """A plugin, and a backbone that knows three pictures, which remember how they were asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[object, dict[str, Any]]] = []
        self.made: list[Mixture] = []
        self.noise_options: dict[str, Any] = {}

    def make(self, model: object, **how: Any) -> Mixture:
        self.asked.append((model, how))
        self.made.append(Mixture(MEMORIZED))
        return self.made[-1]

    @hookimpl
    def register_similarities(self) -> Mapping[str, SimilarityMaker]:
        return {
            "strict": lazy("tests.audits.test_plan:Strict"),
            "stern": Strict,
            "gone": lazy("tests.audits.test_plan:Gone"),
            "sideless": lambda *, device, side: Strict(device=device, threshold=side),
            "deviceless": lambda: Strict(device=torch.device("cpu")),
            "positional": lambda *rest, device: Strict(device=device),  # noqa: ARG005
        }

    @hookimpl
    def register_noise_families(self) -> Mapping[str, NoiseFamilyMaker]:
        return {"plain": self.make_noise}

    @hookimpl
    def register_estimators(self) -> Mapping[str, EstimatorMaker]:
        return {"copies": Copies, "instance": Copies()}  # type: ignore[dict-item]

    def make_noise(self, **options: Any) -> NoiseFamily:
        self.noise_options = options
        return diagonal()


@pytest.fixture(autouse=True)
def parts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Parts]:
    monkeypatch.delenv("INVMM_SSCD_WEIGHTS", raising=False)
    plugin = Parts()
    with serving(plugin.make):
        host().register(plugin)
        yield plugin


def test_results_are_in_the_order_of_the_images(tmp_path: Path) -> None:
    """The unseen picture takes longest and corrupt images are told at once, but they stand where they were given."""
    torn = tmp_path / "torn.png"
    Image.fromarray(MEMORIZED[0, 0].numpy()).save(torn)
    torn.write_bytes(torn.read_bytes()[:45])
    images = [UNSEEN[0], torn, *MEMORIZED, b"no image"]
    for batch_size in (1, 2, 8):
        found = audit("any", images, backbone="exact", settings=SHORT, batch_size=batch_size)
        assert [result.index for result in found] == [0, 1, 2, 3, 4, 5]
        assert [result.name for result in found] == ["0", torn.as_posix(), "2", "3", "4", "5"]
        assert [str(result.status) for result in found] == ["exhausted", "failed", *["replicated"] * 3, "failed"]
        assert str(torn) in str(found[1].error)
        assert found[1].steps == 0
        assert found[1].digest == ""
    only_corrupt = audit("any", [b"", b"no image"], backbone="exact")
    assert [(result.name, str(result.status)) for result in only_corrupt] == [("0", "failed"), ("1", "failed")]


def test_images_are_read_when_there_is_a_place() -> None:
    opened: list[int] = []

    def read(index: int) -> bytes:
        opened.append(index)
        return b""

    plan = planned(Mixture(MEMORIZED), settings={**SHORT, "max_steps": 5})
    sources = [Source("first", MEMORIZED[0]), *(Source(str(i), partial(read, i)) for i in (1, 2))]
    results = run_plan(plan, sources, Resources(batch_size=1))
    assert opened == []
    assert next(results).name == "first"
    assert opened == []
    assert [result.name for result in results] == ["1", "2"]
    assert set(opened) == {1, 2}


def test_an_audit_of_a_model(tiny_folder: Path, tiny_pipeline: DDIMPipeline, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    for name, image in zip(("b.png", "a.png"), pixels, strict=True):
        Image.fromarray(image).save(tmp_path / name)
    found = audit(str(tiny_folder), tmp_path, settings=TINY)
    assert [(result.name, result.steps) for result in found] == [("a.png", 2), ("b.png", 2)]
    others = {
        "a path": audit(tiny_folder, str(tmp_path), settings=TINY),
        "loaded": audit(tiny_pipeline, tmp_path, settings=TINY),
        "arrays": audit(tiny_folder, [pixels[1], pixels[0]], settings=TINY),
        "one by one": audit(tiny_folder, [pixels[1], pixels[0]], settings=TINY, batch_size=1),
        "named": audit(tiny_folder, tmp_path, settings=TINY, backbone="ddpm", device="cpu", dtype="float32"),
        "data set": audit(
            tiny_folder,
            datasets.Dataset.from_dict({"image": [Image.fromarray(pixels[1]), Image.fromarray(pixels[0])]}),
            settings=TINY,
        ),
    }
    for way, other in others.items():
        assert [result.kl for result in other] == [result.kl for result in found], way
    assert [result.kl for result in audit(tiny_folder, tmp_path, settings=TINY, seed=1)] != [r.kl for r in found]


def test_how_a_backbone_is_asked_for(parts: Parts, tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "ExactPipeline"}')
    cpu = torch.device("cpu")
    load_backbone(str(tmp_path), device="cpu", dtype="bfloat16")
    load_backbone("org/any", backbone="exact", revision="v1", device="cpu")
    assert parts.asked == [
        (str(tmp_path), {"revision": None, "device": cpu, "dtype": torch.bfloat16}),
        ("org/any", {"revision": "v1", "device": cpu, "dtype": torch.float32}),
    ]
    assert isinstance(load_backbone(tmp_path), Mixture)


@pytest.mark.parametrize(
    ("choices", "told"),
    [
        ({"backbone": "exakt"}, r"no backbone 'exakt' \(did you mean 'exact'\?\); known names: ddpm, diffusers, exact"),
        (
            {"similarity": "strict", "similarity_options": {"device": "cuda"}},
            r"strict has no option 'device'; its options are: threshold\.",
        ),
        ({"backbone_options": {"dtype": "float16"}}, r"has no option 'dtype'"),
        ({"similarity": "sscd"}, "SSCD needs weights"),
        (
            {"similarity": "strict", "similarity_options": {"threshold": "high"}},
            "strict's threshold is 'high'; it must be a number",
        ),
        ({"similarity": "stern"}, "similarity that is registered as 'stern' has the name 'strict'"),
        ({"similarity": "positional", "similarity_options": {"side": 64}}, "positional has no option 'side'"),
        ({"similarity": "gone"}, r"test_plan:Gone cannot be imported \(AttributeError: .*; correct the name"),
        ({"similarity": "sideless"}, "sideless needs the option 'side'"),
        ({"similarity": "deviceless"}, "deviceless is made with the arguments device; its maker must take them"),
        ({"settings": {"estimators": ("instance",)}}, "instance needs the option 'found'"),
        ({"noise_options": {"rank": 2}}, r"diagonal-gaussian has no option 'rank'; its options are: none\."),
        ({"recipe": "papers"}, "no recipe 'papers'; choose one of fast, paper, dose, demo"),
        ({"settings": {"steps": 3}}, "no setting 'steps'; it has check_every, "),
        ({"settings": {"threshold": 2.0}}, "threshold is 2.0; a similarity is between -1 and 1"),
        ({"device": "gpu"}, "device 'gpu' cannot be used on this machine"),
    ],
)
def test_what_does_not_exist_is_told(choices: dict[str, Any], told: str) -> None:
    with pytest.raises(InvMMError, match=told):
        audit("any", MEMORIZED[0], **{"backbone": "exact", **choices})


def test_a_similarity_may_be_an_object(cosine: PixelCosine) -> None:
    strict = Strict(device=torch.device("cpu"), threshold=1.0)
    plan = planned(Mixture(MEMORIZED), similarity=strict, settings=SHORT)
    assert plan.similarity is strict
    [found] = audit("any", list(UNSEEN), backbone="exact", similarity=strict, settings=SHORT)
    assert (found.status, found.steps) == (Status.REPLICATED, 5)
    named, given = (audit("any", list(MEMORIZED), backbone="exact", similarity=s) for s in ("pixel-cosine", cosine))
    assert [result.kl for result in named] == [result.kl for result in given]


def test_the_similarity_that_is_taken_when_none_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for choices in ({}, {"similarity": None}):
        assert planned(Mixture(MEMORIZED), **choices).config["similarity"]["name"] == "pixel-cosine"
    monkeypatch.setenv("INVMM_SSCD_WEIGHTS", "/nowhere/sscd.onnx")
    with pytest.raises(InvMMError, match=r"SSCD's weights /nowhere/sscd\.onnx cannot be read"):
        planned(Mixture(MEMORIZED))
    assert planned(Mixture(MEMORIZED), similarity="ssim").config["similarity"]["name"] == "ssim"


def test_the_threshold_is_the_recipes_or_else_the_similaritys() -> None:
    assert planned(Mixture(MEMORIZED)).threshold == PixelCosine.threshold
    assert planned(Mixture(MEMORIZED), settings={"threshold": 0.0}).threshold == 0.0
    [found] = audit("any", list(UNSEEN), backbone="exact", settings={**SHORT, "threshold": -1.0})
    assert (found.status, found.steps) == (Status.REPLICATED, 5)


def test_the_estimators_that_a_recipe_names_are_found_and_recorded(tmp_path: Path) -> None:
    settings = {**SHORT, "estimators": ("copies",)}
    [found] = audit("any", MEMORIZED[0], backbone="exact", settings=settings, out=tmp_path / "out")
    assert 1 <= found.estimates["copies"]["hits"] <= 4
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["estimators"] == {"copies": {"hits": "copies among four samples"}}
    with pytest.raises(InvMMError, match="There is no estimator 'copy'"):
        audit("any", MEMORIZED[0], backbone="exact", settings={"estimators": ("copy",)})


OWN = Recipe(name="own", draws=3)


@pytest.mark.parametrize(
    ("choices", "recipe"),
    [
        ({}, fast(QUICK)),
        ({"recipe": "fast"}, fast(QUICK)),
        ({"recipe": "paper"}, QUICK),
        ({"recipe": "demo"}, DEMO),
        ({"recipe": OWN}, OWN),
        ({"recipe": OWN, "settings": {"xi": 0.5}}, replace(OWN, name="own with xi=0.5", xi=0.5)),
    ],
)
def test_recipes(choices: dict[str, Any], recipe: Recipe) -> None:
    assert planned(Mixture(MEMORIZED), **choices).recipe == recipe


@pytest.mark.parametrize("similarity", [PixelCosine, Strict])
def test_the_paper_recipe_is_the_backbones_and_says_what_is_not_the_papers(
    similarity: type[PixelCosine] | type[Strict], tiny_pipeline: DDIMPipeline
) -> None:
    backbone = load_backbone(tiny_pipeline)
    assert isinstance(backbone, DDPM)
    plan = planned(backbone, "tiny", recipe="paper", similarity=similarity(device=torch.device("cpu")))
    assert plan.recipe == replace(PAPER_DDPM, name=f"paper-ddpm with similarity={plan.similarity.name}")


def test_parts_are_made_with_their_options_and_the_config_tells_all_that_decides(parts: Parts) -> None:
    plan = planned(
        Mixture(MEMORIZED),
        "org/name@v1",
        similarity="strict",
        similarity_options={"threshold": 0.25},
        noise="plain",
        noise_options={"rank": 2},
        recipe="paper",
        settings={"max_steps": 10, "guidance": (1.0, 3.0)},
        seed=7,
    )
    assert isinstance(plan.similarity, Strict)
    assert plan.similarity.device == torch.device("cpu")
    assert plan.threshold == 0.25
    assert parts.noise_options == {"rank": 2}
    assert plan.noise(torch.zeros(1, 4, 4)).parameters().keys() == {"mu", "logvar"}
    told = json.loads(json.dumps(plan.config, allow_nan=False))
    recipe = told.pop("recipe")
    assert told == {
        "model": "org/name@v1",
        "weights": Mixture(MEMORIZED).identity,
        "backbone": {"name": "mixture", "image_shape": [1, 4, 4]},
        "similarity": {"name": "strict", "threshold": 0.25, "of": "tests", "side": None},
        "noise": {"name": "plain", "rank": 2},
        "seed": 7,
        "versions": {name: version(name) for name in ("invmm-eval", "torch", "diffusers")},
    }
    assert Recipe.from_record(recipe) == plan.recipe
    assert plan.recipe.max_steps == 10


def test_what_records_call_a_model(tiny_pipeline: DDIMPipeline) -> None:
    models = (("org/name", None), ("org/name", "v1"), (Path("a/folder"), None), (tiny_pipeline, None))
    assert [model_name(*model) for model in models] == ["org/name", "org/name@v1", "a/folder", "DDIMPipeline"]


def test_micro_batches_reach_the_engine(parts: Parts) -> None:
    audit("any", list(MEMORIZED), backbone="exact", settings={**SHORT, "max_steps": 5}, micro_batch=3)
    assert max(parts.made[0].rows_seen) == 3


def test_a_model_that_changed_or_cannot_be_known_is_not_resumed(tmp_path: Path) -> None:
    checkpoint = tmp_path / "model.pt"
    checkpoint.write_bytes(b"first epoch")

    class Anonymous(Mixture):
        identity = None  # type: ignore[assignment]

    def resumed(model: object, folder: str) -> None:
        audit(model, MEMORIZED[0], backbone="exact", similarity="pixel-cosine", settings=SHORT, out=tmp_path / folder)

    with serving(lambda *_, **__: Anonymous(MEMORIZED)):
        resumed(checkpoint, "file")
        resumed(checkpoint, "file")
        checkpoint.write_bytes(b"second epoch")
        with pytest.raises(InvMMError, match="another config: weights is"):
            resumed(checkpoint, "file")
        resumed(object(), "object")
        with pytest.raises(InvMMError, match="identity is not known"):
            resumed(object(), "object")
