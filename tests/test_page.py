"""The page: its parts alone, a search that is looked at, and all of it in a browser."""

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gradio_client import Client, handle_file
from PIL import Image
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from invmm_eval.audit import load_backbone, make_plan
from invmm_eval.findings import find
from invmm_eval.images import Source
from invmm_eval.inversion import Search
from invmm_eval.page import view
from invmm_eval.page.app import ALL, PER_PAGE, matching, offers, served, tiles
from invmm_eval.page.watch import watch
from invmm_eval.reference import pictures
from invmm_eval.result import Result, Status
from tests import audits
from tests.browser import browser, problems, requests  # noqa: F401

SHORT = {"max_steps": 6, "check_every": 2, "draws": 2, "sampler_steps": 2, "check_images": 2, "threshold": 1.0}
TINY = {**SHORT, "max_steps": 4}


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 60, 3), dtype=np.uint8))


def test_a_search_is_looked_at_and_ends_as_it_would_alone(tiny_folder: Path) -> None:
    plan = make_plan(load_backbone(tiny_folder), tiny_folder, recipe="demo", settings=TINY)
    source = Source("one", noise(0))
    *looks, result = watch(plan, source, every=0.001)
    assert looks
    assert all(isinstance(look, Search) and look.target.name == "one" for look in looks)
    [alone] = plan.run([source])
    assert isinstance(result, Result)
    assert (result.status, result.kl, result.digest) == (Status.EXHAUSTED, alone.kl, alone.digest)


def test_a_search_that_nobody_looks_at_any_more_ends(tiny_folder: Path) -> None:
    plan = make_plan(load_backbone(tiny_folder), tiny_folder, recipe="demo", settings={**TINY, "max_steps": 10**6})
    looking = watch(plan, Source("one", noise(0)), every=0.001)
    search = next(looking)
    [thread] = [thread for thread in threading.enumerate() if thread.name.startswith("search")]
    looking.close()
    thread.join(10)
    assert not thread.is_alive()
    assert isinstance(search, Search)
    assert search.step < 10**6


def test_an_image_that_cannot_be_read_is_a_failed_result(tiny_folder: Path) -> None:
    plan = make_plan(load_backbone(tiny_folder), tiny_folder, recipe="demo", settings=TINY)
    [result] = watch(plan, Source("broken", b"no image"))
    assert isinstance(result, Result)
    assert result.status is Status.FAILED


def test_the_pictures_of_an_audit_are_cut_out_as_they_were_put_together(tmp_path: Path) -> None:
    found, target = audits.result(0, Status.REPLICATED, 0.1)
    findings = find(audits.write(tmp_path, [(found, target)]))
    image, rows = view.pictures(findings, findings.results[0])
    assert found.check
    assert image
    assert torch.equal(torch.from_numpy(np.array(image)).permute(2, 0, 1), target.image)
    assert [scale for scale, _ in rows] == list(audits.SCALES)
    for scale, samples in rows:
        drawn = [torch.from_numpy(np.array(sample)).permute(2, 0, 1) for sample, _ in samples]
        assert torch.equal(torch.stack(drawn), found.check.samples[scale])
        assert tuple(value for _, value in samples) == found.check.similarities[scale]
    assert np.array_equal(np.array(view.cover(findings, findings.results[0])), np.array(image))


def test_what_files_and_prompts_say_is_text(tmp_path: Path) -> None:
    findings = find(audits.guided(tmp_path))
    shown = view.overview(findings) + "".join(view.kept(findings, result) for result in findings.results)
    assert "&lt;script&gt;" in shown
    assert "a &lt;i&gt;red&lt;/i&gt; balloon" in shown
    assert not any(tag in shown for tag in ("<script", "<i>", "<b>"))


def test_images_are_found_by_status_and_name_page_by_page(tmp_path: Path) -> None:
    made = [audits.result(index, Status.REPLICATED, 0.001 * (index + 1)) for index in range(PER_PAGE + 3)]
    findings = find(audits.write(tmp_path, [*made, audits.result(40, Status.FAILED)]))
    assert len(matching(findings.results, ALL, "")) == PER_PAGE + 4
    assert [result.name for result in matching(findings.results, "failed", "")] == ["picture 40.png"]
    assert [result.name for result in matching(findings.results, ALL, "PICTURE 26")] == ["picture 26.png"]
    assert matching(findings.results, "failed", "26") == []
    second = [caption for _, caption in tiles(findings, findings.results, 2)]
    assert second == [f"0.0{n + 1} · picture {n}.png" for n in (24, 25, 26)] + ["failed · picture 40.png"] or second == [
        "0.025 · picture 24.png",
        "0.026 · picture 25.png",
        "0.027 · picture 26.png",
        "failed · picture 40.png",
    ]


def test_pictures_without_a_file_are_grey(tmp_path: Path) -> None:
    findings = find(audits.write(tmp_path, [audits.result(0, Status.FAILED)]))
    assert view.cover(findings, findings.results[0]).getcolors() == [(audits.SIDE**2, 128)]
    assert "<img" not in view.kept(findings, findings.results[0])


def test_pictures_of_every_history_are_offered() -> None:
    assert [picture.copies for picture in offers(pictures())] == [256, 256, 16, 0, 0, 0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The one folder where anything may be written."""
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(folder))
        yield folder


@pytest.fixture(scope="module")
def page(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The whole page with an audit, and a recipe that ends soon."""
    with served(audits.guided(tmp_path_factory.mktemp("audit")), **SHORT) as address:
        yield address
    assert list(folder.iterdir()) == [], "what was uploaded does not stay"
