"""What an audit's folder says: counts, the verdict in words, the command that reproduces it."""

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import NormalDist

import pytest

from invmm_eval.audits.request import command
from invmm_eval.errors import InvMMError
from invmm_eval.recipe import STABLE_DIFFUSION, by_dose
from invmm_eval.reports.findings import LIMITS, Findings, find, meaning, one_in, whole
from invmm_eval.search.result import Status
from invmm_eval.statistics.bound import least_share
from invmm_eval.statistics.response import Outcome, Response
from tests.helpers import audits


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Findings:
    return find(audits.guided(tmp_path_factory.mktemp("guided")))


def of(folder: Path, values: Sequence[float | None]) -> Findings:
    """Findings with an image for each value: infinite where it was not replicated, None where it failed."""
    kinds = [Status.FAILED if v is None else Status.EXHAUSTED if math.isinf(v) else Status.REPLICATED for v in values]
    rows = zip(range(len(values)), kinds, values, strict=True)
    return find(audits.write(folder, [audits.result(index, kind, value or 0.0) for index, kind, value in rows]))


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


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([], "holds no result yet"),
        ([None, None], "No image could be measured: the searches of all 2 failed."),
        ([math.inf, math.inf, None], "No image of 2 was replicated within the budget. That is no acquittal."),
        ([0.5, math.inf], "1 of 2 images was replicated, from chosen noise alone: that with its prompt, ordinary"),
        ([0.5, 0.6], "2 of 2 images were replicated, from chosen noise alone"),
        (
            [0.01, 0.5, math.inf, None],
            "1 of 3 images is memorized: with its prompt, ordinary sampling may give copies.",
        ),
        ([0.01, 0.02], "2 of 2 images are memorized"),
    ],
)
def test_the_headline_claims_what_the_value_allows(values: list[float | None], told: str, tmp_path: Path) -> None:
    findings = of(tmp_path, values)
    assert told in findings.headline
    assert ("memorized" in findings.headline) == bool(findings.telling)


def test_the_verdict(found: Findings) -> None:
    counts, bound, most, others, rest = found.verdict
    assert counts.startswith("Of 7 images, 4 were replicated: noise was found from which all 8 samples")
    assert "similarity of 0.5 to the image (sscd); 2 were not within 200 steps; 1 could not be measured." in counts
    assert bound == whole(4, 6)
    assert most.startswith(
        f"The smallest value is that of {audits.NAMES[0]}. Its InvMM is 0.02 nats per dimension, 5.12 nats"
    )
    assert others.startswith("For 3 of the replicated images the value is above 20 nats in all.")
    assert "not what the model holds" in rest


def test_nothing_is_said_where_nothing_was_measured(tmp_path: Path) -> None:
    empty = of(tmp_path / "empty", [])
    assert (empty.verdict, empty.written, empty.fraction) == ((), None, None)
    assert of(tmp_path / "failed", [None]).verdict == ("Nothing is said about memorization.",)


def test_what_is_public_claims_no_more(found: Findings) -> None:
    public = found.public()
    assert public.headline == found.headline
    assert [meaning(r) for r in public.results[:6]] == [meaning(r) for r in found.results[:6]]
    assert "balloon" not in str(public.results)


def test_what_one_result_means(found: Findings) -> None:
    told = meaning(found.results[0])
    samples = float(told.split("one in ")[1].split(" ")[0].replace(",", ""))
    assert 1 <= samples * least_share(5.12) < 1.1
    assert "with the same prompt" in told
    assert meaning(found.results[1]).endswith("38.4 nats in all: too many to promise anything of ordinary sampling.")
    assert "in 200 steps" in meaning(found.results[4])
    assert meaning(found.results[6]).startswith("It could not be measured: The image <b>cannot</b> be used")


@pytest.mark.parametrize(
    ("nats", "told"),
    [(0.0, "1.2"), (1.0, "4.3"), (3.0, "41"), (10.0, "97,000"), (13.0, "2.7 million"), (20.0, "6.5 t")],
)
def test_samples_are_told_in_two_figures_rounded_up(nats: float, told: str) -> None:
    result, _ = audits.result(0, Status.REPLICATED, nats / audits.DIMENSIONS)
    assert f"one in {told}" in meaning(result)


def test_the_settings_are_told(found: Findings) -> None:
    settings = found.settings
    assert settings["Model"] == "org/painter@v1.0"
    assert settings["Similarity"].startswith("sscd (threshold 0.5, sha256 aaaa")
    assert settings["Noise family"] == "low-rank-gaussian (rank 2)"
    assert settings["Check"].endswith("guidance 1, 3, 7")


def test_the_command_is_that_of_the_request(found: Findings) -> None:
    assert found.command == command(found.record.request)
    assert found.public().command == command(found.record.public().request)


def test_the_table(found: Findings) -> None:
    table = found.table()
    rows = table.to_pylist()
    assert [row["name"] for row in rows] == [result.name for result in found.results]
    assert [row["invmm"] for row in rows] == [0.02, 0.15, 0.4, 0.9, None, None, None]
    assert [row["guidance"] for row in rows] == [3.0] * 4 + [1.0, 1.0, None]
    assert rows[-1]["error"] == found.results[-1].error


def test_the_limits_are_those_of_the_readme() -> None:
    text = " ".join((Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8").replace("*", "").split())
    assert len(LIMITS) == 6
    for words in ("does not prove that an image was not memorized", "The value is noisy", "not a membership test"):
        assert words in text
        assert any(words in limit for limit in LIMITS)


def test_a_folder_without_an_audit(tmp_path: Path) -> None:
    with pytest.raises(InvMMError, match="holds no audit"):
        find(tmp_path)


def test_a_line_of_another_version_is_told(tmp_path: Path) -> None:
    audits.guided(tmp_path)
    lines = tmp_path / "results.jsonl"
    lines.write_text(lines.read_text().replace('"dimensions"', '"size"'))
    with pytest.raises(InvMMError, match=r"not of this version of invmm-eval \('dimensions'\)"):
        find(tmp_path)


def test_of_a_search_by_dose_the_dose_of_its_samples_is_told_and_what_it_promises(tmp_path: Path) -> None:
    """Twenty samples within two standard deviations, half of them replicas: nearly as in plain sampling."""
    response = Response(tuple(Outcome(0.1 * place, place >= 10) for place in range(20)))
    result, target = audits.result(0, Status.REPLICATED, 0.01)
    result = replace(result, estimates=audits.estimates(response, (60, 64)))
    told = re.search(
        r"about one copy in ([\d.,]+) samples \(one in ([\d.,]+) to ([\d.,]+), at 95% confidence\), and at least one "
        r"in ([\d.]+) by any curve, since at ([\d.]+) nats \(.* to ([\d.]+)\) 90% of",
        meaning(result),
    )
    assert told
    about, best, worst, samples, nats, high = (float(number.replace(",", "")) for number in told.groups())
    share, dose, plain = response.plain(), response.dose(0.9), NormalDist()
    assert share
    assert (1 / about, 1 / worst, 1 / best) == pytest.approx(share, rel=0.1)
    assert (nats, high) == pytest.approx((dose.nats, dose.high), rel=0.1)
    assert plain.cdf(plain.inv_cdf(0.9) - math.sqrt(2 * high)) == pytest.approx(1 / samples, rel=0.1)
    far = Response(tuple(Outcome(20 + 0.1 * place, place >= 10) for place in range(20)))
    assert "too many to tell how often ordinary sampling gives one" in meaning(
        replace(result, estimates=audits.estimates(far))
    )
    partly = meaning(replace(result, estimates=audits.estimates(response), status=Status.EXHAUSTED))
    assert "It was not replicated in" in partly
    assert "but some samples are copies" in partly
    assert "50% of them are copies" in partly
    assert one_in(1e-17) == "more than a million million"
    config = {**audits.CONFIG, "recipe": asdict(by_dose(STABLE_DIFFUSION))}
    found = find(audits.write(tmp_path, [(result, target)], config))
    assert found.settings["Doses"].startswith("from 2 nats, twice as many")
    assert "64 samples for the curve, its value at 95%" in found.settings["Doses"]
    [row] = found.table().to_pylist()
    assert (row["ed50"], row["rate"]) == (response.dose(0.5).nats, 60 / 64)
    assert row["ed90"] > row["ed50"]
    assert row["plain_share"] == share.rate
