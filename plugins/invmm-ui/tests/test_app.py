"""The page: its parts alone, a search that is watched, and the whole page in a browser."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from invmm_ui import view
from invmm_ui.app import ALL, PER_PAGE, matching, offers, served, tiles
from invmm_ui.watch import watch
from PIL import Image
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from invmm_eval.plugin import (
    Choices,
    InvMMError,
    ModelOptions,
    Result,
    Search,
    Status,
    Target,
    find,
    load_backbone,
    make_plan,
    prepare,
    reference,
)
from tests.helpers import audits
from tests.helpers.browser import browser, problems, requests  # noqa: F401

SHORT: dict[str, Any] = {
    "max_steps": 40,
    "check_every": 20,
    "draws": 1,
    "sampler_steps": 2,
    "check_images": 2,
    "threshold": 1.0,
}
PATIENCE = 600
"""Seconds to wait for a change of the page: only a page that never changes takes them."""
TINY: dict[str, Any] = {**SHORT, "max_steps": 4, "check_every": 2}


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 60, 3), dtype=np.uint8))


def target(side: int = 16) -> Target:
    return Target(prepare(noise(0), (3, side, side)), "one")


def test_watching_a_search_does_not_change_its_result(tiny_ddpm_folder: Path) -> None:
    plan = make_plan(ModelOptions(source=tiny_ddpm_folder), Choices(recipe="demo", settings=TINY))
    *seen, result = watch(plan, target(), every=0.001)
    assert seen
    assert all(isinstance(look, Search) and look.target.name == "one" for look in seen)
    [alone] = plan.measure([target()])
    assert isinstance(result, Result)
    assert (result.status, result.kl, result.digest) == (Status.EXHAUSTED, alone.kl, alone.digest)


def test_closing_the_iterator_stops_the_search(tiny_ddpm_folder: Path) -> None:
    plan = make_plan(
        ModelOptions(source=tiny_ddpm_folder), Choices(recipe="demo", settings={**TINY, "max_steps": 10**6})
    )
    watching = watch(plan, target(), every=0.001)
    search = next(watching)
    [thread] = [thread for thread in threading.enumerate() if thread.name.startswith("search")]
    watching.close()
    thread.join()
    assert isinstance(search, Search)
    assert search.step < 10**6


def test_an_image_of_another_size_is_a_failed_result(tiny_ddpm_folder: Path) -> None:
    plan = make_plan(ModelOptions(source=tiny_ddpm_folder), Choices(recipe="demo", settings=TINY))
    [result] = watch(plan, target(side=8))
    assert isinstance(result, Result)
    assert result.status is Status.FAILED


def test_the_pictures_of_an_audit_are_those_of_its_checks(tmp_path: Path) -> None:
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


def test_names_and_prompts_are_escaped(tmp_path: Path) -> None:
    findings = find(audits.guided(tmp_path))
    shown = view.overview(findings) + "".join(view.kept(findings, result) for result in findings.results)
    assert "&lt;script&gt;" in shown
    assert "a &lt;i&gt;red&lt;/i&gt; balloon" in shown
    assert not any(tag in shown for tag in ("<script", "<i>", "<b>"))


def test_images_are_found_by_verdict_and_name_page_by_page(tmp_path: Path) -> None:
    made = [audits.result(index, Status.REPLICATED, 0.001 * (index + 1)) for index in range(PER_PAGE + 3)]
    findings = find(audits.write(tmp_path, [*made, audits.result(40, Status.FAILED)]))
    assert len(matching(findings.results, ALL, "")) == PER_PAGE + 4
    assert [result.name for result in matching(findings.results, "failed", "")] == ["picture 40.png"]
    assert [result.name for result in matching(findings.results, ALL, "PICTURE 26")] == ["picture 26.png"]
    assert matching(findings.results, "failed", "26") == []
    assert [caption for _, caption in tiles(findings, findings.results, 2)] == [
        "picture 24.png · replicable",
        "picture 25.png · replicable",
        "picture 26.png · replicable",
        "picture 40.png · failed",
    ]
    shared = audits.shared(made[0][0], **audits.KNOWN)
    assert view.caption(shared) == "picture 0.png · memorized, 1 in 39"


def test_pictures_without_a_file_are_grey(tmp_path: Path) -> None:
    findings = find(audits.write(tmp_path, [audits.result(0, Status.FAILED)]))
    assert view.cover(findings, findings.results[0]).getcolors() == [(audits.SIDE**2, 128)]
    assert "<img" not in view.kept(findings, findings.results[0])


def test_pictures_of_every_history_can_be_tried() -> None:
    assert [picture.copies for picture in offers(reference.pictures())] == [256, 256, 16, 0, 0, 0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The only folder that may be written to."""
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(folder))
        yield folder


@pytest.fixture(scope="module")
def page(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The whole page with an audit, and a short recipe."""
    with served(audits.guided(tmp_path_factory.mktemp("audit")), recipe="demo", **SHORT) as address:
        yield address
    assert list(folder.iterdir()) == [], "uploads are removed"


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    noise(1).save(tmp_path / "one.png")
    noise(2).save(tmp_path / "two.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG but no picture")
    return {path.stem: path for path in tmp_path.iterdir()}


def css(browser: Chrome, selector: str) -> Any:  # noqa: F811
    """The element, as soon as it exists."""
    return WebDriverWait(browser, PATIENCE).until(lambda shown: shown.find_element(By.CSS_SELECTOR, selector))


def wait_for(browser: Chrome, selector: str, text: str) -> None:  # noqa: F811
    """Wait until an element contains the text."""
    WebDriverWait(browser, PATIENCE, 0.1, ignored_exceptions=[StaleElementReferenceException]).until(
        lambda shown: text in shown.find_element(By.CSS_SELECTOR, selector).text
    )


def test_a_picture_is_tried_and_an_audit_browsed(
    browser: Chrome,  # noqa: F811
    page: str,
    files: dict[str, Path],
) -> None:
    browser.get(page)
    wait_for(browser, ".overview h2", "1 of 7 images is memorized")
    css(browser, "#images img")
    assert len(browser.find_elements(By.CSS_SELECTOR, "#images .thumbnail-item")) == 7
    css(browser, "#images .thumbnail-item").click()
    wait_for(browser, "#image h3", "<script>alert(1)</script>.png")
    wait_for(browser, "#image p", "About 1 in 39 plain samples with a searched prompt at guidance 3 is a copy")
    assert len(browser.find_elements(By.CSS_SELECTOR, "#image .samples img")) == 2 + 8 + 1
    assert len(browser.find_elements(By.CSS_SELECTOR, "#image .copy")) == 8
    css(browser, "#filter input[value='not replicated']").click()
    WebDriverWait(browser, PATIENCE).until(
        lambda shown: len(shown.find_elements(By.CSS_SELECTOR, "#images .thumbnail-item")) == 2
    )
    css(browser, "#images .thumbnail-item").click()
    wait_for(browser, "#image .verdict", "not replicated")

    browser.find_elements(By.CSS_SELECTOR, "button[role=tab]")[1].click()
    assert not css(browser, "#measure").is_enabled()
    upload = css(browser, "#upload input[type=file]")
    upload.send_keys(str(files["broken"]))
    wait_for(browser, "#panel [role=alert]", "The image cannot be used: it is damaged")
    assert not css(browser, "#measure").is_enabled()
    css(browser, "#upload button[aria-label*=lear], #upload button[aria-label*=emove]").click()
    css(browser, "#upload input[type=file]").send_keys(str(files["one"]))
    wait_for(browser, "#panel p", "in 32x32 pixels")
    css(browser, "#measure").click()
    wait_for(browser, "#panel h3", "Searching: step ")
    assert float(css(browser, "#panel progress").get_attribute("value")) > 0
    wait_for(browser, "#panel h3", "Not replicated")
    assert "∞" in css(browser, "#panel details").get_attribute("textContent")
    assert len(browser.find_elements(By.CSS_SELECTOR, "#panel .samples img")) == 2

    ours = [problem for problem in problems(browser) if "Method not implemented" not in problem]
    assert ours == [], "gradio's own upload warns that a method is not implemented"
    elsewhere = {url for url in requests(browser) if not url.startswith((page, "chrome:", "blob:"))}
    assert elsewhere == set(), "nothing is loaded from other servers"


def test_two_visitors_do_not_share_a_state(browser: Chrome, page: str, files: dict[str, Path]) -> None:  # noqa: F811
    """Two tabs are two visitors: each sees its own picture, with the result of a search alone."""
    tabs = {}
    for name in ("one", "two"):
        browser.switch_to.new_window("tab")
        browser.get(page)
        tabs[name] = browser.current_window_handle
        WebDriverWait(browser, PATIENCE).until(
            lambda shown: len(shown.find_elements(By.CSS_SELECTOR, "[role=tab]")) > 1
        )
        browser.find_elements(By.CSS_SELECTOR, "button[role=tab]")[1].click()
        css(browser, "#upload input[type=file]").send_keys(str(files[name]))
        wait_for(browser, "#panel h3", "Ready")
    for tab in tabs.values():
        browser.switch_to.window(tab)
        css(browser, "#measure").click()
    plan = make_plan(
        ModelOptions(source=reference.MODEL), Choices(similarity="pixel-cosine", recipe="demo", settings=SHORT)
    )
    for name, tab in tabs.items():
        picture = prepare(files[name], plan.backbone.image_shape)
        [alone] = plan.measure([Target(picture, name)], micro_batch=reference.MICRO_BATCH)
        assert alone.check
        browser.switch_to.window(tab)
        wait_for(browser, "#panel h3", "Not replicated")
        shown = [caption.text for caption in browser.find_elements(By.CSS_SELECTOR, "#panel .samples figcaption")]
        assert shown == [f"{value:.2f}" for value in alone.check.similarities[1.0]]
        target = view.measured(alone, picture, plan.threshold)
        assert str(css(browser, "#panel .target img").get_attribute("src")) in target


def test_uploads_are_limited_in_size(page: str, folder: Path) -> None:
    before = {path for path in folder.rglob("*") if path.is_file()}
    answer = httpx.post(f"{page}gradio_api/upload", files={"files": ("large.png", bytes(6 * 2**20))}, timeout=None)
    assert answer.status_code == 413
    assert {path for path in folder.rglob("*") if path.is_file()} == before


def test_it_is_served_on_loopback_without_an_api(page: str) -> None:
    assert page.startswith("http://127.0.0.1:")
    information = httpx.get(f"{page}gradio_api/info", timeout=None).json()
    assert information == {"named_endpoints": {}, "unnamed_endpoints": {}}
    assert httpx.get(f"{page}config", timeout=None).json()["analytics_enabled"] is False


def test_any_model_can_be_tried(tiny_ddpm_folder: Path) -> None:
    with served(model=str(tiny_ddpm_folder), recipe="demo", **TINY) as address:
        shown = httpx.get(f"{address}config", timeout=None).text
    _, height, width = load_backbone(tiny_ddpm_folder).image_shape
    assert f"The model {tiny_ddpm_folder} makes pictures of {width}x{height} pixels." in shown
    assert "trained on emoji" not in shown


def test_a_folder_without_an_audit_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InvMMError, match="holds no audit"), served(tmp_path):
        pass
