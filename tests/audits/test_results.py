"""What audit() returns: a list, with a summary, a table, and a picture of itself in notebooks."""

import base64
import math
import pickle
import re
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from invmm_eval.audits.results import NO_SHARE, Results, count, read_audit, summarize
from invmm_eval.audits.run import audit
from invmm_eval.reports.findings import find
from invmm_eval.search.result import CONFIRMATION, PLAIN_SHARE, Check, Result, Status
from invmm_eval.search.sentence import sentence
from invmm_eval.search.status import Verdict
from tests.helpers.command import TINY

FAILED = Result(1, "<b>.png", "", Status.FAILED, error="It is <damaged>.")


PIXELS = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("audit")


@pytest.fixture(scope="module")
def found(tiny_folder: Path, folder: Path) -> Results:
    return audit(tiny_folder, [*PIXELS, b"no image"], out=folder, settings=TINY, similarity="ssim")


@pytest.mark.parametrize("kept", [False, True])
def test_an_audit_returns_results_with_their_images(tiny_folder: Path, found: Results, kept: bool) -> None:
    if not kept:
        found = audit(tiny_folder, [*PIXELS, b"no image"], settings=TINY, similarity="ssim")
    assert isinstance(found, list)
    assert found.summary == summarize(found)
    for result, image in zip(found[:2], PIXELS, strict=True):
        sheet = np.asarray(result.picture)
        assert np.array_equal(sheet[:, :8], image), "the image comes first"
        assert result.check is not None
        samples = result.check.samples[result.check.best_scale]
        assert np.array_equal(sheet[:, 10:18], samples[0].permute(1, 2, 0).numpy())
        assert sheet.shape == (8, 10 * (1 + len(samples)) - 2, 3)
    assert found[2].picture is None
    assert [result.name for result in pickle.loads(pickle.dumps(found))] == ["0", "1", "2"]


def test_the_table_is_that_of_the_folder(found: Results, folder: Path) -> None:
    frame = found.to_pandas()
    assert frame["kl"].tolist()[:2] == [result.kl for result in found[:2]]
    assert frame["invmm"].isna().all(), "infinity is null"
    kept = find(folder).table()
    assert kept.column_names == list(frame.columns)
    assert sorted(kept["kl"].to_pylist()[:2]) == sorted(frame["kl"][:2])
    assert all(f"``{name}``" in (Results.__doc__ or "") for name in kept.column_names), "each column is described"


def test_an_audit_is_read_from_its_folder(found: Results, folder: Path) -> None:
    read = read_audit(folder)
    assert read.table().equals(found.table())
    check = read[0].check
    assert check
    assert f"similarities={dict(check.similarities)!r}" in repr(check), "what is read late is shown as it is"
    assert {**read[0].noise}.keys() == {"mu", "logvar"}


def test_a_result_is_one_line() -> None:
    result = Result(0, "cat.png", "", Status.REPLICATED, kl=0.01234, dimensions=48)
    assert repr(result) == f"<Result cat.png: replicable, {sentence(result)}>"
    assert "\n" not in repr(FAILED)
    assert repr(FAILED) == "<Result <b>.png: could not be measured: It is <damaged>>"


def test_results_say_what_they_come_to() -> None:
    results = Results([FAILED, *(Result(i, f"{i}.png", "", Status.REPLICATED, kl=i + 1.0) for i in range(30))])
    title, *lines = repr(results).splitlines()
    assert title == "31 images: 0 memorized, 30 replicable, 0 not replicated, 1 failed; 11 more are not shown"
    assert len(lines) == 20
    assert "0.png" in lines[0], "the most memorized comes first"


def test_a_notebook_shows_the_image_and_its_samples(found: Results) -> None:
    html = Results([found[0], FAILED])._repr_html_()
    [data] = re.findall(r'src="data:image/png;base64,(.*?)"', html)
    shown = Image.open(BytesIO(base64.b64decode(data)))
    assert np.array_equal(np.asarray(shown), np.asarray(found[0].picture))
    assert "&lt;b&gt;.png" in html
    assert "<b>.png" not in html
    assert "It is &lt;damaged&gt;" in html


def test_a_result_can_be_plotted(found: Results) -> None:
    [axes] = found[0].plot().axes
    assert axes.get_title() == found[0].words
    [image] = axes.images
    assert np.array_equal(np.asarray(image.get_array()), np.asarray(found[0].picture))
    assert not FAILED.plot().axes[0].images


def test_a_grey_image_is_shown_in_grey() -> None:
    check = Check(True, {1.0: (1.0,)}, {1.0: torch.zeros(1, 1, 4, 4, dtype=torch.uint8)})
    result = Result(0, "", "", Status.REPLICATED, check=check, target=torch.full((1, 4, 4), 7, dtype=torch.uint8))
    assert result.picture is not None
    assert result.picture.mode == "L"
    assert result.picture.getpixel((0, 0)) == 7


def result(kl: float | None, *, replicated: bool = True) -> Result:
    if kl is None:
        return Result(0, "", "", Status.FAILED, error="It broke.")
    return Result(0, "", "", Status.REPLICATED if replicated else Status.EXHAUSTED, kl=kl)


exhausted = partial(result, replicated=False)


def shared(low: float) -> Result:
    return replace(exhausted(0.1), estimates={PLAIN_SHARE: {"share": 2 * low, "low": low, "copies": 9}})


def test_verdicts_are_counted_over_all_images() -> None:
    results = [shared(0.1), shared(1e-9), result(0.5), exhausted(0.1), result(None)]
    found = summarize(results)
    counts = [found[name] for name in ("memorized", "replicable", "not_replicated", "failed")]
    assert (counts, found["images"], found["memorized_fraction"]) == ([1, 2, 1, 1], 5, 1 / 5)
    assert list(count(results).values()) == counts
    assert list(count(results)) == list(Verdict)


@pytest.mark.parametrize(
    ("results", "fraction"),
    [
        ([result(0.5), exhausted(0.1)], None),
        ([result(None)], None),
        ([shared(0.0), result(0.5)], 0.0),
        ([replace(exhausted(0.1), estimates={CONFIRMATION: {"hits": 0, "drawn": 8}})], 0.0),
    ],
)
def test_no_fraction_is_memorized_where_no_share_was_estimated(
    results: list[Result], fraction: float | None, caplog: pytest.LogCaptureFixture
) -> None:
    assert summarize(results)["memorized_fraction"] == fraction
    measured = any(result.status is not Status.FAILED for result in results)
    assert (NO_SHARE in caplog.text) is (measured and fraction is None)


NUMBERS = ("replicated", "failed", "replicated_fraction", "median_invmm", "smallest_invmm")


@pytest.mark.parametrize(
    ("results", "numbers"),
    [
        ([result(0.5), result(0.1), result(0.4)], (3, 0, 1.0, 0.4, 0.1)),
        ([result(0.5), result(0.1), result(0.25), result(0.75)], (4, 0, 1.0, 0.375, 0.1)),
        ([exhausted(0.01), result(0.5), result(0.1), exhausted(0.2), result(0.3)], (3, 0, 0.6, 0.5, 0.1)),
        ([exhausted(0.01), result(0.5), result(0.1), exhausted(0.2)], (2, 0, 0.5, math.inf, 0.1)),
        ([exhausted(0.01), result(0.5), exhausted(0.2)], (1, 0, 1 / 3, math.inf, 0.5)),
        ([exhausted(0.01), exhausted(0.2)], (0, 0, 0.0, math.inf, math.inf)),
        ([result(None), result(0.5), result(None), exhausted(0.1), result(0.25)], (2, 2, 2 / 5, 0.5, 0.25)),
        ([result(None), result(None)], (0, 2, None, None, None)),
        ([], (0, 0, None, None, None)),
    ],
)
def test_a_summary(results: list[Result], numbers: tuple[float | None, ...]) -> None:
    found = summarize(results)
    assert {name: found[name] for name in NUMBERS} == dict(zip(NUMBERS, numbers, strict=True))
    assert found["images"] == len(results)
