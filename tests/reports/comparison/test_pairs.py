"""Two audits are paired by picture, and everything that cannot be compared is refused or told."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest, wilcoxon

import invmm_eval
from invmm_eval.audits.folder.files import lock_of
from invmm_eval.errors import InvMMError
from invmm_eval.reports.comparison import Change, Comparison, compare
from invmm_eval.reports.comparison.words import paragraphs
from invmm_eval.search.result import Status
from tests.helpers import audits
from tests.reports.comparison.conftest import CONFIG, NONE, OFTEN, OTHER, SELDOM, of

CHANGES = {
    "picture 0.png": Change.BECAME,
    "picture 1.png": Change.FREED,
    "picture 2.png": Change.BOTH,
    "picture 3.png": Change.NEITHER,
    "picture 4.png": Change.NEITHER,
    "picture 5.png": Change.FAILED,
    "picture 6.png": Change.NEITHER,
    "picture 7.png": Change.ONLY_A,
    "picture 8.png": Change.ONLY_B,
    "picture 9.png": Change.FAILED,
}


def test_each_picture_has_its_change_and_none_is_lost(compared: Comparison) -> None:
    assert {pair.either.name: pair.change for pair in compared.pairs} == CHANGES
    assert [pair.change for pair in compared.pairs] == sorted(CHANGES.values(), key=list(Change).index)
    assert "1 became memorized, 1 no longer is" in repr(compared)


def test_shares_change_in_nats_from_end_to_end(compared: Comparison) -> None:
    by_name = {pair.either.name: pair for pair in compared.pairs}
    both = by_name["picture 2.png"]
    assert both.nats_change == pytest.approx(math.log(17 / 20))
    assert both.nats_ends is not None
    assert both.nats_ends == pytest.approx((-math.log(2), math.log(2)))
    assert not both.is_clear
    freed = by_name["picture 1.png"]
    assert freed.nats_change == pytest.approx(math.log(100_000 / 20))
    assert freed.nats_ends is not None
    assert freed.nats_ends == pytest.approx((math.log(139 / 30), math.inf))
    assert freed.is_clear
    assert by_name["picture 0.png"].nats_change == pytest.approx(-math.log(100_000 / 20))
    assert (by_name["picture 3.png"].nats_change, by_name["picture 4.png"].nats_change) == (0, 0)
    assert [by_name[f"picture {number}.png"].nats_change for number in (5, 6, 7, 8, 9)] == [None] * 5
    assert compared.typical == pytest.approx(math.log(17 / 20))


def test_both_tests_take_the_pictures_that_changed(compared: Comparison) -> None:
    assert (compared.sides.p, compared.sides.changes) == (binomtest(1, 2).pvalue, 2)
    assert compared.ranks.changes == 3
    # The ranks are 1 down, 2.5 down and 2.5 up: no sum of such ranks is nearer to its mean.
    assert compared.ranks.p == 1


def test_shares_too_small_to_be_measured_are_equal(tmp_path: Path) -> None:
    def audited(name: str, *shares: float) -> Path:
        rows = [of(index, {**SELDOM, "share": share, "low": share / 100}) for index, share in enumerate(shares)]
        return audits.write(tmp_path / name, rows, CONFIG)

    compared = compare(audited("a", *[1e-11] * 8, 1.1e-5, 4e-3, 6e-3), audited("b", *[1e-12] * 8, 1e-9, 2e-3, 2e-3))
    assert compared.ranks.changes == 3
    assert compared.ranks.p == wilcoxon(np.log([1.1, 2, 3]), method="exact").pvalue
    assert compared.typical == pytest.approx((math.log(2) + math.log(3)) / 2)
    told = " ".join(paragraphs(compared))
    assert "2 images have more than 1 copy in 100,000 plain samples in both audits." in told
    assert "no copy and rarer ones, whose share is estimated too low, count as 1 copy in 100,000" in told


def test_the_table_has_all_pictures_and_null_for_what_is_infinite_or_unknown(compared: Comparison) -> None:
    frame = compared.to_pandas().set_index("name")
    assert frame["change"].to_dict() == {name: str(change) for name, change in CHANGES.items()}
    assert frame.loc["picture 1.png", "plain_share_a"] == pytest.approx(1 / 20)
    assert frame.loc["picture 1.png", "plain_share_b"] == 0
    assert frame.loc["picture 1.png", "nats_change_low"] == pytest.approx(math.log(139 / 30))
    assert frame.loc["picture 1.png", ["nats_change_high", "limit_nats_b"]].isna().all()
    assert frame.filter(like="_b").loc["picture 7.png"].isna().all()


def test_the_record_is_strict_json(compared: Comparison) -> None:
    record = json.loads(json.dumps(compared.record(), allow_nan=False))
    assert record["counts"] == {str(change): list(CHANGES.values()).count(change) for change in Change}
    assert record["a"] == {"model": "org/painter@v1.0", "weights": "5" * 40}
    assert record["differing"]["Model"] == {"a": "org/painter@v1.0", "b": "org/painter-tuned"}
    assert set(record["differing"]) == {"Model", "Weights"}


def test_an_audit_compared_with_itself_has_no_change(folders: tuple[Path, Path]) -> None:
    itself = invmm_eval.compare(folders[0], folders[0])
    assert not itself.differing
    assert not itself.became + itself.freed
    assert (itself.sides.p, itself.ranks.p) == (1, 1)


def test_equal_pictures_under_several_names_are_one(tmp_path: Path) -> None:
    (first, target), (second, _) = of(0, OFTEN), of(0, OFTEN)
    twin = second.placed(1, "twin.png", target.image)
    a = audits.write(tmp_path / "a", [(first, target), (twin, target)], CONFIG)
    b = audits.write(tmp_path / "b", [(first, target)], OTHER)
    assert [pair.change for pair in compare(a, b).pairs] == [Change.BOTH]


def test_without_shares_what_was_replicated_is_compared(tmp_path: Path) -> None:
    found = [audits.result(index, Status.REPLICATED, 0.02) for index in range(2)]
    a = audits.write(tmp_path / "a", found)
    b = audits.write(tmp_path / "b", [audits.result(0, Status.EXHAUSTED), audits.result(1, Status.REPLICATED, 0.03)])
    compared = compare(a, b)
    assert [pair.change for pair in compared.pairs] == [Change.FREED, Change.BOTH]
    assert [pair.nats_change for pair in compared.pairs] == [math.inf, pytest.approx(0.01 * audits.DIMENSIONS)]
    assert compared.headline.startswith("Of 2 images, 2 are replicated in A and 1 in B")


def changed(**parts: Any) -> Mapping[str, Any]:
    return {**OTHER, **{name: {**OTHER[name], **values} for name, values in parts.items()}}


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (changed(recipe={"draws": 9}), "recipe.draws is 24 in A and 9 in B"),
        (
            changed(recipe={"draws": 9, "window": 3, "name": "mine"}),
            ": recipe is fast-sd in A and mine in B. Only",
        ),
        (changed(recipe={"threshold": 0.7}), "threshold is 0.5 in A and 0.7 in B"),
        (changed(similarity={"threshold": 0.6}), "threshold is 0.5 in A and 0.6 in B"),
        (changed(similarity={"side": 32}), "similarity.side is 64 in A and 32 in B"),
        (changed(noise={"rank": 3}), "noise.rank is 2 in A and 3 in B"),
        (changed(backbone={"prompt_mode": "empty"}), "backbone.prompt_mode is soft in A and empty in B"),
        (
            changed(backbone={"image_shape": [3, 48, 48]}),
            "backbone.image_shape is [3, 24, 24] in A and [3, 48, 48] in B",
        ),
    ],
)
def test_audits_that_were_measured_otherwise_are_refused(
    config: Mapping[str, Any], told: str, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    other = audits.write(tmp_path / "other", [of(0, OFTEN)], config)
    with pytest.raises(InvMMError, match="were not measured in the same way") as refused:
        compare(folders[0], other)
    assert told in str(refused.value)


def test_a_threshold_counts_however_it_is_set(folders: tuple[Path, Path], tmp_path: Path) -> None:
    config = changed(recipe={"threshold": 0.5, "name": "mine"}, similarity={"threshold": 0.4})
    assert compare(folders[0], audits.write(tmp_path / "b", [of(0, OFTEN)], config)).became


def test_audits_without_a_common_picture_are_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    other = audits.write(tmp_path / "other", [of(20, OFTEN)], OTHER)
    with pytest.raises(InvMMError, match="have no image in common: an image is known by its pixels"):
        compare(folders[0], other)
    result, target = of(0, OFTEN)
    captioned = replace(result, caption="a boat")
    captions = audits.write(tmp_path / "captions", [(captioned, replace(target, caption="a boat"))], OTHER)
    with pytest.raises(InvMMError, match="have no image in common: their captions differ"):
        compare(folders[0], captions)


def test_audits_that_are_not_finished_are_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    waiting = audits.write(tmp_path / "waiting", [of(0, NONE)], OTHER, asked=["picture 0.png", "picture 1.png"])
    empty = audits.write(tmp_path / "empty", [], OTHER)
    for folder in (waiting, empty):
        with pytest.raises(InvMMError, match="is not finished"):
            compare(folders[0], folder)


def test_an_audit_that_runs_is_refused(copies: tuple[Path, Path]) -> None:
    a, b = copies
    with lock_of(b), pytest.raises(InvMMError, match="is still running"):
        compare(a, b)


def test_a_set_whose_audit_was_interrupted_is_refused(copies: tuple[Path, Path]) -> None:
    a, b = copies
    (b / "request.json").write_text(
        json.dumps({"model": "m", "images": None, "captions": None, "recipe": "fast", "control": 2})
    )
    with pytest.raises(InvMMError, match="is not finished"):
        compare(a, b)
