"""The simulated audit is one that the store reads as its own."""

from benchmarks.store import measure


def test_an_audit_of_lines_alone_can_be_asked_and_gone_on_with() -> None:
    figures = measure(50)
    assert figures["rows"] == 50
    assert 1000 < figures["bytes a line"] < 6000
    assert all(figures[f"{command}, GiB"] > 0.1 for command in ("status", "resume"))
