"""Every family of the page is served as it says."""

from tests.helpers.coverage import PAGE, table


def test_the_table_of_the_page_is_what_is_served() -> None:
    assert table() in PAGE.read_text("utf-8")
