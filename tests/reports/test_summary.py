"""The numbers of an audit."""

import pytest

from invmm_eval.reports.findings import Findings
from invmm_eval.reports.wording import meaning
from invmm_eval.search.status import Verdict
from tests.helpers import audits


def test_the_numbers(found: Findings) -> None:
    assert (found.images, found.measured) == (7, 6)
    assert list(found.counts.values()) == [1, 3, 2, 1]
    assert [result.index for result in found.results] == [0, 3, 1, 2, 4, 5, 6]
    assert [result.nats for result in found.results[:2]] == pytest.approx(
        [0.02 * audits.DIMENSIONS, 0.15 * audits.DIMENSIONS]
    )
    assert found.results[-2].nats is None
    assert [result.index for result in found.of(Verdict.REPLICABLE)] == [3, 1, 2]
    assert found.written is not None
    assert found.threshold == 0.5
    assert found.picture(found.results[0]).is_file()
    assert not found.picture(found.results[-1]).is_file()


def test_a_public_copy_has_no_names_and_the_same_sentences(found: Findings) -> None:
    public = found.public()
    assert public.headline == found.headline
    assert [meaning(r) for r in public.results[:6]] == [meaning(r) for r in found.results[:6]]
    assert public.counts == found.counts
    assert "balloon" not in str(public.results)
    assert not any(result.traceback for result in public.results)
