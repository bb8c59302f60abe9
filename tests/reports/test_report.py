"""The report of an audit: its file and formats, and the page as people use it in a browser."""

import base64
import csv
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from invmm_eval.audits.whole.found import Design
from invmm_eval.errors import InvMMError
from invmm_eval.reports import FORMATS, findings, report
from invmm_eval.reports.card import addition
from invmm_eval.reports.findings import find
from invmm_eval.reports.html import page as page_module
from invmm_eval.reports.html.embed import tiled
from invmm_eval.search.result import Status
from invmm_eval.search.status import Verdict
from invmm_eval.statistics.response import Outcome, Response
from tests.helpers import audits
from tests.helpers.browser import browser, problems, requests  # noqa: F401
from tests.reports.pages import check_that_nothing_is_loaded, data_of, text_of


@pytest.fixture(scope="module")
def page(guided: Path) -> Path:
    return report(guided)


def test_the_page_has_all_findings(guided: Path, page: Path) -> None:
    assert page == guided / "report.html"
    found, written = find(guided), page.read_text("utf-8")
    for sentence in (
        found.headline,
        *found.paragraphs,
        *found.limits,
        *found.settings.values(),
        found.command,
        "7 results, last written ",
    ):
        assert " ".join(sentence.split()) in text_of(written)
    rows = data_of(written)["rows"]["rows"]
    assert [row["name"] for row in rows] == [result.name for result in found.results]
    assert [row["values"]["invmm"] for row in rows] == [0.02, 0.15, 0.4, 0.9, None, None, None]
    for row, result in zip(rows, found.results, strict=True):
        detail, record = data_of(written)[f"image-{row['id']}"], result.record()
        kept = ("index", "digest", "similarities", "prompt", "trace")
        assert {key: detail[key] for key in kept} == {key: record[key] for key in kept}
        assert (detail["picture"] is None) == (result.status is Status.FAILED)


def test_the_page_runs_its_own_script_alone_and_loads_nothing(page: Path) -> None:
    written = page.read_text("utf-8")
    check_that_nothing_is_loaded(written, scripts=1)
    assert "alert" not in re.findall(r"<script>(.*?)</script>", written, re.S)[0]


def test_a_whole_set_is_what_its_counts_are_out_of(tmp_path: Path) -> None:
    found, target = audits.result(0, Status.REPLICATED, 0.02)
    folder = audits.write(
        tmp_path, [(audits.shared(found, **audits.KNOWN), target), audits.result(1, Status.EXHAUSTED)]
    )
    Design(
        images=10, pictures=10, unreadable=0, suspects=(0,), control=(1,), end="clean", clean=1, screen_rows=40
    ).save(folder)
    text, [memorized, *_] = text_of(report(folder).read_text("utf-8")), addition(find(folder)).results
    assert text.count("At least 1 of 10 images is memorized: at least 1 in 10,000 plain samples") == 1
    assert [int(count) for count in re.findall(r"(\d) of 10\b", text.partition("Findings")[2])][:3] == [1, 1, 8]
    assert "of 2 " not in text
    assert memorized.metric_args
    assert (memorized.metric_value, memorized.metric_args["images"], memorized.metric_args["searched"]) == (0.1, 10, 2)


@pytest.mark.parametrize(("side", "kept"), [(64, audits.SIDE), (audits.SIDE, audits.SIDE), (12, 12)])
def test_pictures_are_tiled_without_gaps(side: int, kept: int) -> None:
    tiles = [[Image.new("L", (audits.SIDE, audits.SIDE), 25 * (3 * y + x)) for x in range(3 - y)] for y in range(2)]
    cells = np.asarray(tiled([tiles[0], [None, *tiles[1]]], side)).reshape(2, kept, 3, kept).swapaxes(1, 2)
    assert [sorted(set(cell.flatten().tolist())) for cell in cells.reshape(6, -1)] == [
        [0],
        [25],
        [50],
        [255],
        [75],
        [100],
    ]


def test_images_without_a_result_are_counted(tmp_path: Path) -> None:
    found = audits.result(0, Status.EXHAUSTED)
    names = (found[1].name, "another.png", "a third.png")
    folders = [audits.write(tmp_path / str(count), [found], asked=names[:count]) for count in (1, 2, 3)]
    told = [text_of(report(folder).read_text("utf-8")) for folder in folders]
    assert ["no result yet" in text for text in told] == [False, True, True]
    assert "1 image has no result yet" in told[1]
    assert "2 images have no result yet" in told[2]


def test_the_table_as_csv(guided: Path) -> None:
    with report(guided, format="csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    expected = find(guided).table().to_pylist()
    assert [row["name"] for row in rows] == [row["name"] for row in expected]
    assert set(audits.NAMES) <= {row["name"] for row in rows}
    assert [float(row["invmm"]) if row["invmm"] else None for row in rows] == [row["invmm"] for row in expected]


@pytest.mark.parametrize(("images", "parts"), [(1, 7), (3, 3), (50, 1)])
def test_a_table_is_written_in_parts_with_the_values_of_estimators_that_only_some_images_have(
    images: int, parts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [audits.result(index, Status.REPLICATED, 1 - index / 10) for index in range(6)]
    found[4] = replace(found[4][0], estimates={"sharp": {"edge": 0.5, "kind": "blur"}}), found[4][1]
    folder = audits.write(tmp_path / "audit", [*found, audits.result(6, Status.FAILED)])
    monkeypatch.setattr(findings, "_ROWS", images)
    path = report(folder, format="parquet")
    table = pyarrow.parquet.read_table(path)
    assert table.equals(find(folder).table())
    assert table["name"].to_pylist()[:2] == ["picture 5.png", "picture 4.png"]
    assert table["sharp_edge"].to_pylist()[1:3] == [0.5, None]
    assert pyarrow.parquet.ParquetFile(path).num_row_groups == parts


def test_a_page_of_many_images_has_the_most_memorized_and_says_where_the_others_are(
    guided: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = text_of(report(guided, tmp_path / "whole.html").read_text("utf-8"))
    monkeypatch.setattr(page_module, "LISTED", 4)
    monkeypatch.setattr(page_module, "SHOWN", 2)
    written = report(guided, tmp_path / "capped.html").read_text("utf-8")
    rows, *details = data_of(written).values()
    assert [row["name"] for row in rows["rows"]] == [result.name for result in find(guided).results[:4]]
    assert [len(detail["trace"]) for detail in details] == [2, 2], "those that are shown have their traces"
    text = text_of(written)
    assert "The 2 most memorized images have pictures and details. The table has 4 of 7 images" in text
    assert "report FOLDER --format csv writes the table of all" in text
    assert "most memorized images" not in whole
    assert text.count("of 7") > 1, "the numbers are of all"
    page_module.write_page(find(guided), tmp_path / "private.html", pictures=False)
    assert "The 2 most memorized images have details." in text_of((tmp_path / "private.html").read_text("utf-8"))


def test_the_figure_alone(guided: Path) -> None:
    with Image.open(report(guided, format="png")) as image:
        assert image.format == "PNG"
        assert image.convert("RGBA").getpixel((0, 0)) == (255, 255, 255, 255)
    drawn = ElementTree.parse(report(guided, format="svg")).getroot()
    assert drawn.tag == "{http://www.w3.org/2000/svg}svg"
    assert any("plain samples per copy" in (text.text or "") for text in drawn.iter("{http://www.w3.org/2000/svg}text"))


def test_a_report_that_cannot_be_written_is_one_sentence(guided: Path, tmp_path: Path) -> None:
    with pytest.raises(InvMMError, match=f"no format 'pdf'; choose one of {', '.join(FORMATS)}"):
        report(guided, format="pdf")
    with pytest.raises(InvMMError, match="holds no audit"):
        report(tmp_path)
    for kind in FORMATS:
        with pytest.raises(InvMMError, match=r"The report cannot be written to .*: No such file"):
            report(guided, tmp_path / "missing" / "report", kind)


class Page:
    """A report in the browser."""

    def __init__(self, browser: Chrome, path: Path) -> None:  # noqa: F811
        self.browser = browser
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
        for ask in (problems, requests):
            ask(browser)
        browser.get(path.as_uri())

    def all(self, selector: str) -> list[WebElement]:
        found: list[WebElement] = self.browser.find_elements(By.CSS_SELECTOR, selector)
        return found

    def one(self, selector: str) -> WebElement:
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def names(self) -> list[str]:
        return [cell.text.strip() for cell in self.all("tbody th")]

    def heading(self, key: str) -> WebElement:
        return self.one(f"th[data-key={key}]")

    def press(self, *keys: str) -> None:
        ActionChains(self.browser).send_keys(*keys).perform()

    def focused(self) -> WebElement:
        return self.browser.switch_to.active_element


@pytest.fixture
def opened(browser: Chrome, page: Path) -> Page:  # noqa: F811
    return Page(browser, page)


def named(*indices: int) -> list[str]:
    names = [*audits.NAMES, *(f"picture {index}.png" for index in (4, 5, 6))]
    return [names[index] for index in indices]


def test_the_page_opens_without_warnings_and_requests_nothing(opened: Page, page: Path) -> None:
    assert opened.names() == named(0, 3, 1, 2, 4, 5, 6)
    assert problems(opened.browser) == []
    assert requests(opened.browser) == [page.as_uri()]
    shown = opened.browser.execute_async_script(
        "const [done] = arguments; const image = new Image(); image.onload = () => done(image.naturalWidth);"
        "image.src = document.querySelector('tbody image').getAttribute('href');"
    )
    assert shown == 9 * audits.SIDE
    values = [cell.text for cell in opened.all("tbody td.invmm")]
    assert values == ["0.02", "0.15", "0.4", "0.9", "∞", "∞", "-"]


def test_sorting(opened: Page) -> None:
    value, name = opened.heading("invmm"), opened.heading("name")
    assert value.get_attribute("aria-sort") is None
    for direction in ("ascending", "descending"):
        value.find_element(By.TAG_NAME, "button").click()
        assert value.get_attribute("aria-sort") == direction
    assert opened.names() == named(2, 1, 3, 0, 4, 5, 6)
    name.find_element(By.TAG_NAME, "button").click()
    assert (value.get_attribute("aria-sort"), name.get_attribute("aria-sort")) == (None, "ascending")
    assert opened.names()[-3:] == named(4, 5, 6)
    opened.heading("verdict").find_element(By.TAG_NAME, "button").click()
    assert opened.names()[0] == named(6)[0]


def test_filtering(opened: Page) -> None:
    opened.one("#name").send_keys("PICTURE")
    assert opened.names() == named(4, 5, 6)
    assert opened.one("#count").text == "3 of 3 shown; 4 filtered out."
    opened.one("input[value=failed]").click()
    assert opened.names() == named(4, 5)
    opened.one("form button[type=reset]").click()
    opened.browser.execute_async_script("setTimeout(arguments[0], 50)")
    assert len(opened.names()) == 7


def test_an_opened_image_shows_all(opened: Page) -> None:
    button = opened.one("tbody button")
    assert button.get_attribute("aria-expanded") == "false"
    button.click()
    assert button.get_attribute("aria-expanded") == "true"
    detail = opened.one("tr.detail")
    for told in (
        "The chosen noise supplies 7.39 bits",
        "1 in 39 (1 in 27 to 1 in 58)",
        "Guidance 1: 2 samples",
        "Guidance 3: 8 samples",
        "Guidance 7: 1 sample",
    ):
        assert told in detail.text
    assert "a <i>red</i> balloon" in detail.text
    assert len(detail.find_elements(By.CSS_SELECTOR, ".scale figure")) == 11
    assert [copy.text for copy in detail.find_elements(By.CSS_SELECTOR, ".copy")][:2] == ["0.52", "0.57"]
    charts = [chart.get_attribute("aria-label") for chart in detail.find_elements(By.CSS_SELECTOR, ".charts svg")]
    assert charts[0] == "Loss: 0.02 at step 50, 0.01 at step 100"
    assert len(charts) == 3
    opened.heading("name").find_element(By.TAG_NAME, "button").click()
    assert len(opened.all("tr.detail")) == 1
    opened.one("button[aria-expanded=true]").click()
    assert not opened.all("tr.detail")
    opened.all("tbody button")[-1].click()
    assert "The image <b>cannot</b> be used: it is damaged." in opened.one("tr.detail").text
    assert problems(opened.browser) == []


def test_it_is_used_by_keyboard(opened: Page) -> None:
    opened.press(Keys.TAB)
    assert opened.focused().text == "Skip to the images"
    opened.press(Keys.ENTER, Keys.TAB)
    assert opened.focused().get_attribute("id") == "name"
    opened.press("picture")
    opened.press(*[Keys.TAB] * 6)
    sort = opened.focused()
    assert sort.text.startswith("Image")
    opened.press(Keys.ENTER, Keys.SPACE)
    assert opened.heading("name").get_attribute("aria-sort") == "descending"
    assert opened.focused() == sort
    assert sort.value_of_css_property("outline-style") == "solid"
    opened.press(*[Keys.TAB] * sum(button.is_displayed() for button in opened.all("thead button")), Keys.ENTER)
    assert opened.focused().text.startswith("picture 6.png")
    assert opened.focused().get_attribute("aria-expanded") == "true"


def test_every_control_has_a_name(opened: Page) -> None:
    for control in opened.all("button:not([hidden]), input, a"):
        assert control.accessible_name or not control.is_displayed(), control.get_attribute("outerHTML")
    for picture in opened.all("svg[role=img]"):
        assert picture.accessible_name


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2.2 defines it."""
    channels = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(scheme: str, opened: Page) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    opened.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    opened.one("tbody button").click()
    ground = luminance(opened.one("body").value_of_css_property("background-color"))
    raised = luminance(opened.one(".detail > td > div").value_of_css_property("background-color"))
    assert (ground > 0.5) == (scheme == "light")
    for selector in (
        "h1",
        ".note",
        *(f".{verdict.name.lower()} dd" for verdict in Verdict),
        "thead button",
        ".verdict .memorized",
        ".verdict .failed",
    ):
        text = luminance(opened.one(selector).value_of_css_property("color"))
        for behind in (ground, raised):
            lighter, darker = max(text, behind), min(text, behind)
            assert (lighter + 0.05) / (darker + 0.05) >= 4.5, selector


@pytest.mark.parametrize("width", [360, 420, 720, 768, 860, 900, 1024, 1100, 1190, 1280])
def test_no_width_needs_scrolling_sideways_or_loses_verdict_share_and_samples(width: int, opened: Page) -> None:
    size = {"width": width, "height": 740, "deviceScaleFactor": 1, "mobile": width < 500}
    opened.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    opened.one("tbody button").click()
    reached = opened.browser.execute_script("return document.documentElement.scrollWidth")
    shown = [opened.one(f"tbody .{kind}").is_displayed() for kind in ("verdict", "plain_share", "samples svg")]
    opened.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert (reached <= width, shown) == (True, [True] * 3)


def test_a_curve_is_drawn_where_there_is_one(browser: Chrome, tmp_path: Path) -> None:  # noqa: F811
    result, target = audits.result(0, Status.REPLICATED, 0.1)
    response = Response(tuple(Outcome(0.1 * place, place >= 20) for place in range(40)))
    page = Page(
        browser, report(audits.write(tmp_path, [(replace(result, estimates=audits.estimates(response)), target)]))
    )
    page.one("tbody button").click()
    label = page.one(".charts svg").get_attribute("aria-label")
    assert str(label).startswith("Share of copies by distance of the noise: 0 % at 0.2, ")
    assert str(label).endswith("100 % at 3.7")
    assert len(page.all(".charts svg:first-of-type circle")) >= 8
    assert problems(browser) == []


def test_it_prints_on_white_without_controls(opened: Page) -> None:
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    opened.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": features})
    assert luminance(opened.one("body").value_of_css_property("background-color")) == 1
    assert luminance(opened.one("h1").value_of_css_property("color")) == 0
    assert not opened.one("form").is_displayed()
    for kept in ("tbody .samples svg", "tbody .verdict"):
        assert opened.one(kept).is_displayed()
    assert opened.one("tbody .verdict").value_of_css_property("print-color-adjust") == "exact"
    opened.one("tbody button").click()
    assert opened.one("tr.detail").value_of_css_property("break-inside") == "auto", "else it starts a page of its own"
    printed = opened.browser.execute_cdp_cmd("Page.printToPDF", {})["data"]
    assert base64.b64decode(printed).startswith(b"%PDF")


def test_many_images_are_shown_in_parts_and_without_details_they_do_not_open(
    browser: Chrome,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(page_module, "SHOWN", 1)
    first = audits.result(0, Status.REPLICATED, 0.1)
    failed = [audits.result(index, Status.FAILED) for index in range(1, 150)]
    page = Page(browser, report(audits.write(tmp_path, [first, *failed])))
    assert len(page.names()) == 100
    assert page.one("#count").text == "100 of 150 shown."
    page.one("#more").click()
    assert len(page.names()) == 150
    assert not page.one("#more").is_displayed()
    assert [button.is_enabled() for button in page.all("tbody button")[:3]] == [True, False, False]
    assert problems(browser) == []


def test_an_empty_audit_opens(browser: Chrome, tmp_path: Path) -> None:  # noqa: F811
    page = Page(browser, report(audits.write(tmp_path, [])))
    assert page.one("h1").text == "This audit has no results yet."
    assert problems(browser) == []


@pytest.mark.parametrize("form", FORMATS)
def test_a_report_that_ends_in_the_middle_leaves_the_earlier_one(
    form: str, guided: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = tmp_path / f"kept.{form}"
    earlier.write_bytes(b"as it was")

    def interrupted(_: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setitem(FORMATS, form, interrupted)
    with pytest.raises(KeyboardInterrupt):
        report(guided, earlier, form)
    assert earlier.read_bytes() == b"as it was"
    assert list(tmp_path.iterdir()) == [earlier]


def test_a_report_goes_through_links_and_into_pipes(guided: Path, tmp_path: Path) -> None:
    (tmp_path / "link.csv").symlink_to("there.csv")
    report(guided, tmp_path / "link.csv", "csv")
    assert (tmp_path / "link.csv").is_symlink()
    os.mkfifo(tmp_path / "pipe")
    with ThreadPoolExecutor() as threads:
        received = threads.submit((tmp_path / "pipe").read_bytes)
        report(guided, tmp_path / "pipe", "csv")
        assert received.result() == (tmp_path / "there.csv").read_bytes()
