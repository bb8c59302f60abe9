"""The sentences about a whole set: each number where it belongs."""

from invmm_eval.audits.whole.found import Design, WholeSet
from invmm_eval.reports.whole import sentences
from invmm_eval.search.result import Result, Status
from invmm_eval.statistics.finite import most_in

DESIGN = Design(
    images=1010,
    pictures=1000,
    unreadable=4,
    suspects=(4, 9, 1, 2),
    control=(30, 31, 32, 33, 34),
    end="clean",
    clean=2,
    screen_rows=4000,
)


def result(index: int, status: Status, rows: int = 400) -> Result:
    """A result; of a replicated image one in ten plain samples is a copy."""
    share = {"share": 0.1, "low": 0.05, "copies": 5, "samples": 50}
    estimates = {"plain-share": share} if status is Status.REPLICATED else {}
    digest = f"{index:064}"
    return Result(index, str(index), digest, status, kl=0.1, dimensions=10, rows=rows, estimates=estimates)


def test_what_is_said() -> None:
    kinds = {4: Status.REPLICATED, 2: Status.FAILED, 33: Status.REPLICATED}
    indices = (*DESIGN.suspects, *DESIGN.control)
    whole = WholeSet(DESIGN, {index: result(index, kinds.get(index, Status.EXHAUSTED)) for index in indices})
    most = most_in(996, 1, 5)
    assert list(sentences(whole)) == [
        "At least 2 of 1,000 images are memorized.",
        "1 of the 4 most suspicious images is memorized, and 1 of the 5 drawn at random from the others.",
        f"Of the 991 images that were not searched, at most {most - 1} are memorized. The screen missed at most 100 "
        "% of all memorized images (95 % confidence).",
        "No more suspects were searched, since 2 in a row are not memorized. This took 7,600 network rows, 4,000 of "
        "them for the screen; to search all would take about 400,000. What all images share, such as plain samples of "
        "the model, is not counted.",
        "1 image could not be searched: nothing is known about it.",
        "4 of 1,010 images could not be read or scored.",
        "6 of 1,010 images are equal to others: equal ones count once.",
    ]


def test_what_is_said_without_a_suspect() -> None:
    design = Design(9, 9, 0, (), (3, 7), "budget", 20, 36)
    said = list(sentences(WholeSet(design, {index: result(index, Status.EXHAUSTED) for index in (3, 7)})))
    assert said[1:4] == [
        "0 of the 2 images drawn at random are memorized.",
        f"Of the 7 images that were not searched, at most {most_in(9, 0, 2)} are memorized (95 % confidence).",
        "No suspects were searched, since the budget was spent. This took 836 network rows, 36 of them for the screen; "
        "to search all would take about 3,600. What all images share, such as plain samples of the model, is not "
        "counted.",
    ]


def test_what_is_said_without_a_control_sample() -> None:
    design = Design(9, 9, 0, (0, 1), (), "budget", 20, 36)
    said = " ".join(sentences(WholeSet(design, {index: result(index, Status.EXHAUSTED) for index in (0, 1)})))
    assert said.startswith(
        "None of the 2 images searched, of 9, is memorized. 0 of the 2 most suspicious images are memorized."
    )
    assert "Nothing is known about the 7 images that were not searched" in said
    assert "since the budget was spent" in said
    assert "confidence" not in said
