"""The simulated audit is one that the store reads as its own."""

from benchmarks.store import measure


def test_an_audit_of_rows_alone_has_a_status_and_can_be_resumed() -> None:
    figures = measure(50)
    assert figures["rows"] == 50
    assert 500 < figures["bytes a line"] < 1000
    assert all(figures[f"{command}, GiB"] > 0.1 for command in ("status", "resume", "table", "page"))
