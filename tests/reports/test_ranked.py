"""The results of an audit are ranked without being held."""

import gc
from dataclasses import replace
from pathlib import Path

from invmm_eval.reports.findings import find
from invmm_eval.reports.html.page import write_page
from invmm_eval.search.fields import present
from invmm_eval.search.result import Result, Status, rank
from tests.helpers import audits


def held() -> int:
    return sum(type(thing) is Result for thing in gc.get_objects())


def test_the_order_and_the_values_are_those_of_sorted_results(tmp_path: Path) -> None:
    found = find(audits.guided(tmp_path))
    expected = sorted(found.record.results(), key=rank)
    assert [result.index for result in found.results] == [result.index for result in expected]
    assert [rank(result) for result in expected] == [tuple(key) for key in found.results.keys.tolist()]
    assert [result.name for verdict in found.counts for result in found.of(verdict)] == [r.name for r in expected]
    assert all(result.verdict is verdict for verdict in found.counts for result in found.of(verdict))


def test_memory_holds_no_more_results_of_many_than_of_few(tmp_path: Path) -> None:
    before = held()
    found = find(audits.write(tmp_path, [audits.result(index, Status.EXHAUSTED) for index in range(30)]))
    assert len(found.paragraphs) + len(found.public().results) >= 30
    assert 1 <= held() - before <= 3
    write_page(found, tmp_path / "page.html", pictures=False)
    assert held() - before <= 3


def test_a_value_that_one_result_alone_has_is_among_the_examples(tmp_path: Path) -> None:
    results = [audits.result(index, Status.EXHAUSTED) for index in range(9)]
    lone = replace(results[4][0], estimates={"third-party": {"half-life": 3.5}})
    results[4] = audits.shared(lone, **audits.KNOWN), results[4][1]
    found = find(audits.write(tmp_path, results))
    names = [field.name for field in present("table", [*found.results])]
    assert names == [field.name for field in present("table", found.results.examples)]
    assert {"plain_share", "third-party_half-life"} <= set(names)
    assert len(found.results.examples) < 5


def test_without_results_there_is_an_order_of_none(tmp_path: Path) -> None:
    found = find(audits.write(tmp_path, []))
    assert list(found.results) == list(found.results.examples) == []
    assert found.table().num_rows == 0
    assert found.table().num_columns > 20
