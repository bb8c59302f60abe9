"""The page of a comparison: one file that loads nothing, with every picture and its values."""

import re
from html import unescape
from pathlib import Path

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from invmm_eval.errors import InvMMError
from invmm_eval.reports.comparison import Comparison, page
from invmm_eval.reports.comparison.words import LIMITS, paragraphs
from tests.helpers.browser import browser  # noqa: F401
from tests.reports.pages import check_that_nothing_is_loaded


@pytest.fixture(scope="module")
def written(compared: Comparison, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "comparison.html"
    page.write_page(compared, path)
    return path.read_text("utf-8")


def test_all_is_told(written: str, compared: Comparison) -> None:
    text = unescape(written)
    for sentence in (
        compared.headline,
        *paragraphs(compared),
        *LIMITS,
        "org/painter-tuned",
        *compared.a.settings.values(),
    ):
        assert sentence in text
    rows = re.findall(r"<tr>\s*<th scope=\"row\">(.*?)</th>(.*?)</tr>", written, re.S)
    assert [unescape(name) for name, _ in rows] == [pair.either.name for pair in compared.pairs]
    by_name = dict(rows)
    assert by_name["picture 1.png"].count("data:image/webp") == 2
    assert "1 in 20" in by_name["picture 1.png"]
    assert "at least +1.53" in by_name["picture 1.png"]
    assert "not searched" in by_name["picture 7.png"]
    assert "&lt;b&gt;cannot&lt;/b&gt;" in by_name["picture 5.png"]


def test_nothing_is_loaded_and_no_script_runs(written: str) -> None:
    check_that_nothing_is_loaded(written)


def test_a_phone_shows_all_of_a_row(browser: Chrome, written: str, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "page.html").write_text(written, encoding="utf-8")
    size = {"width": 420, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get((tmp_path / "page.html").as_uri())
    reached = browser.execute_script("return document.documentElement.scrollWidth")
    shown = [cell.is_displayed() for cell in browser.find_elements(By.CSS_SELECTOR, "tbody tr:first-child > *")]
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert (reached <= 420, shown) == (True, [True] * 5)


def test_a_long_table_says_what_it_leaves_out(
    compared: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "SHOWN", 3)
    page.write_page(compared, tmp_path / "short.html")
    text = (tmp_path / "short.html").read_text("utf-8")
    assert text.count('<th scope="row">') == 3
    assert "7 more images are not shown" in text


def test_a_page_that_cannot_be_written_is_one_sentence(compared: Comparison, tmp_path: Path) -> None:
    with pytest.raises(InvMMError, match="cannot be written to"):
        page.write_page(compared, tmp_path / "missing" / "page.html")
