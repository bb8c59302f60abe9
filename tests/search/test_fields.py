"""The one table of fields: an entry of it, and the value of an estimator, reach every face."""

import csv
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
from diffusers import DDIMPipeline
from invmm_ui import view

from invmm_eval.integrations.torchmetrics import InvMM as WatchedInvMM
from invmm_eval.metric.invmm import InvMM
from invmm_eval.reports import report
from invmm_eval.reports.card import addition
from invmm_eval.reports.dataset import write_dataset
from invmm_eval.reports.findings import Findings, find
from invmm_eval.reports.numbers import capital
from invmm_eval.reports.terminal import ResultsTable
from invmm_eval.search import fields as module
from invmm_eval.search.fields import FIELDS, Field, fields, number, percent, present
from invmm_eval.search.result import Result, Status
from invmm_eval.search.sentence import sentence
from invmm_eval.statistics.response import Outcome, Response
from tests.helpers import audits
from tests.helpers.command import TINY, printed
from tests.helpers.exact import pictures

ADDED = Field("oddity", pa.float64(), "how odd the image is", lambda result: 12345.0 + result.index, heading="Oddity")
RESPONSE = Response(tuple(Outcome(0.1 * place, place >= 10) for place in range(40)))
ESTIMATES = ("ed50", "ed90", "rate")
SHARES = ("plain_share", "limit_nats")


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> Field:
    monkeypatch.setattr(module, "FIELDS", (*FIELDS, ADDED))
    return ADDED


@pytest.fixture
def found(tmp_path: Path) -> Findings:
    """One replicated image by dose, with the value of an estimator."""
    result, target = audits.result(0, Status.REPLICATED, 0.1)
    result = replace(result, estimates=audits.estimates(RESPONSE, (60, 64)) | {"dice": {"odds": 54321.0}})
    result = audits.shared(result, **audits.KNOWN)
    return find(audits.write(tmp_path / "audit", [(result, target)]))


def terminal(found: Findings) -> str:
    return printed(ResultsTable(found.results), 300)


def card(found: Findings) -> str:
    return addition(found).section


def html(found: Findings) -> str:
    return report(found.record.folder).read_text(encoding="utf-8")


@pytest.mark.usefixtures("added")
@pytest.mark.parametrize("face", [terminal, card, html], ids=lambda face: face.__name__)
def test_a_field_is_shown_to_people_with_its_value_and_description(
    face: Callable[[Findings], str], found: Findings
) -> None:
    text = face(found)
    for told in ("Oddity", "12,345", "how odd the image is", "ice odds", "54,321", "odds by the estimator dice"):
        assert told in text
    [result] = found.results
    for field in FIELDS:
        if field.name in (*ESTIMATES, *SHARES) and (field.name != "limit_nats" or face is html):
            assert (capital(field.title) if face is html else field.title) in text
            assert field.text(result) in text


@pytest.mark.usefixtures("added")
def test_a_field_is_in_the_opened_row_of_the_page(found: Findings) -> None:
    block = re.search(r'id="image-0">(.*?)</script>', html(found))
    assert block
    facts = {title: (value, description) for title, value, description in json.loads(block[1])["facts"]}
    assert facts["Oddity"] == ("12,345", "how odd the image is")
    assert facts["Dice odds"][0] == "54,321"
    assert facts["Plain samples"][0] == "1 in 39 (1 in 27 to 1 in 58)"
    assert facts["Limit, nats"][0] == f"{math.log(38.6):.3g} ({math.log(27.9):.3g} to {math.log(57.2):.3g})"


@pytest.mark.usefixtures("added")
def test_a_field_is_on_the_web_page_and_in_the_table_of_mlflow(found: Findings) -> None:
    [result] = found.results
    shown, [logged] = view.kept(found, result), found.public().table().to_pylist()
    for field in fields("details", found.results):
        if field.name in (*ESTIMATES, *SHARES, "oddity", "dice_odds"):
            assert field.title in shown
            assert field.text(result) in shown
            assert logged[field.name] == field.value(result)


@pytest.mark.usefixtures("added")
def test_a_field_is_in_files(found: Findings, tmp_path: Path) -> None:
    files = write_dataset(found, tmp_path / "dataset")
    read = datasets.load_dataset(str(tmp_path / "dataset"), split="test", cache_dir=str(tmp_path / "cache"))
    with report(found.record.folder, format="csv").open(encoding="utf-8", newline="") as file:
        [row] = csv.DictReader(file)
    for values in (read[0], {name: row[name] and float(row[name]) for name in ("oddity", "dice_odds", "ed50_low")}):
        assert (values["oddity"], values["dice_odds"]) == (12345.0, 54321.0)
        assert values["ed50_low"] == RESPONSE.dose(0.5).low
    assert (read[0]["verdict"], read[0]["finding"]) == ("memorized", sentence(found.results[0]))
    assert (read[0]["plain_samples"], read[0]["relative_error"]) == (400, None)
    described = files["README.md"].read_text(encoding="utf-8")
    for name in (
        "oddity",
        "dice\\_odds",
        *(f"{name}{end}" for name in (*ESTIMATES, *SHARES) for end in ("", "_low", "_high")),
    ):
        assert f"| `{name.replace(chr(92), '')}` | " in described


@pytest.mark.usefixtures("added")
def test_metrics_return_a_field(tiny_pipeline: DDIMPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    metric, watched = InvMM(), WatchedInvMM(tiny_pipeline, settings=TINY)
    watched.update(pictures(2, (3, 8, 8)))
    made, estimates = Result.__init__, {"dice": {"odds": 54321.0}}  # as the engine gives those of a recipe
    monkeypatch.setattr(
        Result, "__init__", lambda self, *args, **how: made(self, *args, **how | {"estimates": estimates})
    )
    found: Mapping[str, Any] = metric.compute(references=pictures(2, (3, 8, 8)), model=tiny_pipeline, settings=TINY)
    assert (found["oddity"], found["dice_odds"]) == ([12345.0, 12346.0], [54321.0] * 2)
    tensors = watched.compute()
    assert (tensors["oddity"].tolist(), tensors["dice_odds"].tolist()) == ([12345.0, 12346.0], [54321.0] * 2)
    assert found["verdict"] == ["not replicated"] * 2
    for name in (*ESTIMATES, *SHARES):
        for end in ("", "_low", "_high"):
            assert found[f"{name}{end}"] == [None, None], "not by dose"
            assert tensors[f"{name}{end}"].isnan().all()


def test_only_fields_with_a_value_are_present() -> None:
    plain, failed = audits.result(0, Status.EXHAUSTED)[0], audits.result(1, Status.FAILED)[0]
    assert "similarity" in [field.name for field in present("table", [plain, failed])]
    assert "similarity" not in [field.name for field in present("table", [failed])]
    assert set(ESTIMATES).isdisjoint(field.name for field in present("details", [plain]))
    assert set(ESTIMATES) <= {field.name for field in fields("details")}


def test_descriptions_of_estimators_are_looked_up() -> None:
    result = replace(audits.result(0, Status.EXHAUSTED)[0], estimates={"dice": {"odds": 2, "fair": True, "faces": [1]}})
    *_, odds, fair, faces = fields("table", [result], {"dice": {"odds": "the odds"}}.get)  # type: ignore[arg-type]
    assert (odds.description, fair.type, faces.value(result)) == ("the odds", pa.bool_(), "[1]")


def test_what_the_noise_supplied_is_in_bits_beside_those_of_the_picture() -> None:
    result, target = audits.result(0, Status.REPLICATED, 0.1)
    values = {field.name: field.value(result) for field in fields("details")}
    assert values["bits"] == pytest.approx(values["nats"] * math.log2(math.e))
    assert values["picture_bits"] == target.bits


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"share": 0.1, "low": 0.05}, "2.3 (at most 3)"),
        ({"share": 0.1, "low": 0.05, "high": 0.2}, "2.3 (1.61 to 3)"),
        ({"high": 0.01}, "- (at least 4.61)"),
        ({}, "-"),
    ],
)
def test_a_lower_limit_of_the_share_is_an_upper_one_of_nats(values: dict[str, float], text: str) -> None:
    result = audits.shared(audits.result(0, Status.REPLICATED, 0.1)[0], **values)
    [limit] = [field for field in FIELDS if field.name == "limit_nats"]
    assert limit.full(result) == text


def test_numbers_have_three_significant_digits_and_rates_are_in_per_cent() -> None:
    assert [*map(number, (0.0, 0.012345, 12345.6, math.inf, math.nan))] == ["0", "0.0123", "12,346", "∞", "-"]
    assert [*map(percent, (0.0, 1.0, 0.128, 0.0123))] == ["0 %", "100 %", "13 %", "1.2 %"]
