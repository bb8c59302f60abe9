"""Reasons of failures: each is stated once, with the number of images."""

from typing import Any

from invmm_eval.reports.failures import by_reason, in_one_sentence, listed


def row(name: str, error: str | None) -> dict[str, Any]:
    return {"name": name, "status": "failed" if error else "exhausted", "error": error}


def test_errors_that_differ_in_the_name_alone_have_one_reason() -> None:
    rows = [row(name, f"The image 'pictures/{name}' is damaged.") for name in ("a.png", "b.png")]
    groups = by_reason([*rows, row("c.png", None)])
    assert [len(group) for group in groups] == [2]
    assert in_one_sentence(groups) == (
        "All 2 images failed for the same reason: The image 'pictures/a.png' is damaged."
    )
    assert listed(groups) == ["2 failed, such as a.png: The image is damaged."]


def test_a_name_that_is_part_of_the_error_by_chance_does_not_split_a_reason() -> None:
    assert len(by_reason([row("a", "It was damaged."), row("b", "It was damaged."), row("", "It was damaged.")])) == 1


def test_the_most_frequent_reason_comes_first() -> None:
    groups = by_reason([row("a", "Rare."), row("b", "Common."), row("c", "Common.")])
    assert in_one_sentence(groups) == "All 3 images failed for 2 different reasons, most often: Common."
    assert listed(groups) == ["2 failed, such as b: Common.", "1 failed: Rare."]


def test_one_image_is_one_image() -> None:
    assert in_one_sentence(by_reason([row("a", "KeyError: 'x'")])) == "The image could not be measured: KeyError: 'x'"


def test_many_reasons_are_not_all_listed() -> None:
    groups = by_reason([row(str(number), f"Error {number + 10}.") for number in range(5)])
    assert listed(groups)[-1] == "2 failed for other reasons."


def test_no_failure_is_no_line() -> None:
    assert listed(by_reason([row("a", None)])) == []
