"""The sentences about an audit: what they claim follows from the verdicts, out of one denominator."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from invmm_eval.recipe import DDPM, by_dose, fast
from invmm_eval.reports.findings import Findings, find
from invmm_eval.reports.wording import counted, limits, meaning
from invmm_eval.search.result import Status
from invmm_eval.search.sentence import sentence
from tests.helpers import audits


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([], "This audit has no results yet."),
        ([None], "The image could not be measured."),
        ([None, None], "None of the 2 images was measured."),
        (
            [math.inf, math.inf, None],
            "None of the 3 images was replicated within the budget. This does not rule out memorization.",
        ),
        ([math.inf], "The image was not replicated within the budget. This does not rule out memorization."),
        ([0.01, math.inf], "1 of 2 images is replicable from noise that the search chose."),
        ([0.5, 0.6, None], "2 of 3 images are replicable from noise that the search chose."),
    ],
)
def test_without_a_share_no_image_is_said_to_be_memorized(
    values: list[float | None], text: str, tmp_path: Path
) -> None:
    findings = audits.of_values(tmp_path, values)
    assert findings.headline.startswith(text)
    assert "memorized:" not in findings.headline


@pytest.mark.parametrize("status", [Status.REPLICATED, Status.EXHAUSTED])
def test_the_headline_follows_the_share_whatever_the_status(status: Status, tmp_path: Path) -> None:
    image = audits.result(0, status, 0.5)
    others = [audits.result(1, Status.EXHAUSTED), audits.result(2, Status.FAILED)]
    findings = find(audits.write(tmp_path, [(audits.shared(image[0], **audits.KNOWN), image[1]), *others]))
    assert findings.headline == (
        "1 of 3 images is memorized: at least 1 in 10,000 plain samples with a searched prompt at guidance "
        f"{3 if status is Status.REPLICATED else 1} is a copy."
    )
    assert findings.paragraphs[0] == (
        "Most memorized is picture 0.png: about 1 in 39 plain samples with a searched prompt at guidance "
        f"{3 if status is Status.REPLICATED else 1} is a copy (95 % confidence: 1 in 27 to 1 in 58)."
    )


@pytest.mark.parametrize(
    ("guidance", "samples"),
    [
        ([0], "at least 1 in 10,000 plain samples without a prompt"),
        ([0, 0], "of each, at least 1 in 10,000 plain samples without a prompt"),
        ([0, 3], "of each, at least 1 in 10,000 plain samples, with or without a prompt as named below,"),
    ],
)
def test_the_headline_names_the_samples_that_the_shares_are_of(
    guidance: list[float], samples: str, tmp_path: Path
) -> None:
    images = [audits.result(index, Status.REPLICATED, 0.5) for index in range(len(guidance))]
    rows = [
        (audits.shared(result, **audits.KNOWN, plain_guidance=scale), target)
        for (result, target), scale in zip(images, guidance, strict=True)
    ]
    assert find(audits.write(tmp_path, rows)).headline.endswith(f" memorized: {samples} is a copy.")


def test_a_caption_is_told_from_a_searched_prompt_in_files_and_without_names_too(tmp_path: Path) -> None:
    result, target = audits.result(0, Status.REPLICATED, 0.5)
    captioned = audits.shared(replace(result, prompt="a cat", caption="a cat"), **audits.KNOWN)
    found = find(audits.write(tmp_path, [(captioned, replace(target, caption="a cat"))]))
    for read in (found, found.public()):
        assert read.headline.endswith("plain samples with its caption at guidance 3 is a copy.")


def test_the_paragraphs_give_the_most_memorized_the_terms_and_failures(found: Findings) -> None:
    first, memorized, replicable, failure = found.paragraphs
    assert first == f"Most memorized is {audits.NAMES[0]}: {sentence(found.results[0])}."
    assert memorized.endswith("Then audit again.")
    assert "compare its nats with those of images that are known to be new" in replicable
    assert failure == "1 failed: The image <b>cannot</b> be used: it is damaged."


def test_all_counts_are_out_of_all_images(found: Findings) -> None:
    assert counted(found.counts) == "Of 7 images: 1 memorized, 3 replicable, 2 not replicated, 1 failed."


def test_images_that_failed_for_one_reason_are_one_paragraph(tmp_path: Path) -> None:
    failures = [audits.result(index, Status.FAILED) for index in range(3)]
    failures = [(replace(result, traceback="Traceback ..."), target) for result, target in failures]
    findings = find(audits.write(tmp_path, failures))
    reason, hint, conclusion = findings.paragraphs
    assert reason == "3 failed, such as picture 0.png: The image <b>cannot</b> be used: it is damaged."
    assert hint.startswith("The tracebacks of unexpected errors are in results.jsonl; with --debug")
    assert conclusion == "Nothing can be concluded about memorization."
    assert findings.public().paragraphs == (conclusion,)
    assert audits.of_values(tmp_path / "empty", []).paragraphs == ()


def test_the_meaning_of_one_result(found: Findings) -> None:
    first = found.results[0]
    assert meaning(first) == (
        f"A{sentence(first)[1:]}. The chosen noise supplies 7.39 bits of information; the image as PNG "
        f"has {first.picture_bits:,}."
    )
    assert meaning(replace(first, picture_bits=None)).endswith("supplies 7.39 bits of information.")
    assert meaning(found.results[4]).endswith("are copies was not measured.")
    assert meaning(found.results[6]).startswith("Could not be measured: The image <b>cannot</b> be used")


def test_near_copies_that_count_are_named(tmp_path: Path) -> None:
    similarity = {**audits.CONFIG["similarity"], "flip": True, "shift": 2, "crop": 0.8}
    near = find(audits.write(tmp_path, [], {**audits.CONFIG, "similarity": similarity}))
    assert near.what_is_a_copy == (
        "A sample is a copy if its similarity to the image (sscd) is at least 0.5. A copy may also be mirrored (left "
        "to right) or shifted by up to 2 pixels or enlarged from 80 % of the sides, at a corner or in the middle."
    )


def test_the_limits_fit_the_recipe_and_are_those_of_the_readme() -> None:
    paper, dose = list(limits(DDPM)), list(limits(by_dose(DDPM)))
    assert ["is noisy" in limit for limit in paper].count(True) == 1
    assert not any("is noisy" in limit for limit in dose)
    assert any("along one direction" in limit for limit in dose)
    assert any("InvMM is rough" in limit for limit in limits(fast(DDPM)))
    searched, given = (list(limits(DDPM, mode)) for mode in ("soft", "caption"))
    assert (searched[:-1], given[:-1]) == (paper, paper)
    assert "far more often with its caption" in searched[-1]
    assert "Prompts other than the given one" in given[-1]
    text = " ".join((Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8").replace("*", "").split())
    for words in ("does not prove that an image was not memorized", "is noisy", "not a membership test"):
        assert words in text
        assert any(words in limit for limit in paper)
