"""The numbers of an audit."""

import math
from pathlib import Path

import pytest

from invmm_eval.reports.findings import Findings
from invmm_eval.reports.wording import meaning
from tests.helpers import audits


def test_the_numbers(found: Findings) -> None:
    assert (found.images, found.measured, found.replicated, found.exhausted, found.failed) == (7, 6, 4, 2, 1)
    assert found.fraction == pytest.approx(4 / 6)
    assert found.least == 0.02
    assert found.median == pytest.approx((0.4 + 0.9) / 2)
    assert [result.index for result in found.results] == [0, 3, 1, 2, 4, 5, 6]
    assert [result.nats for result in found.results[:2]] == pytest.approx(
        [0.02 * audits.DIMENSIONS, 0.15 * audits.DIMENSIONS]
    )
    assert found.results[-2].nats is None
    assert [result.index for result in found.telling] == [0]
    assert found.written is not None
    assert found.threshold == 0.5
    assert found.picture(found.results[0]).is_file()
    assert not found.picture(found.results[-1]).is_file()


def test_a_median_is_infinite_unless_more_than_half_were_replicated(tmp_path: Path) -> None:
    assert audits.of_values(tmp_path / "half", [0.1, math.inf]).median == math.inf
    assert audits.of_values(tmp_path / "most", [0.1, 0.2, math.inf]).median == 0.2


def test_a_public_copy_has_no_names_and_the_same_sentences(found: Findings) -> None:
    public = found.public()
    assert public.headline == found.headline
    assert [meaning(r) for r in public.results[:6]] == [meaning(r) for r in found.results[:6]]
    assert "balloon" not in str(public.results)
    assert not any(result.traceback for result in public.results)
