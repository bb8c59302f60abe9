"""A model's card: what an audit adds to it, that the rest is kept, and how it is proposed on the Hub."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries
from markdown_it import MarkdownIt
from markdown_it.token import Token

from invmm_eval.audits.folder.files import read_object, write_object
from invmm_eval.errors import InvMMError
from invmm_eval.reports.card import END, ENTRIES, FOLDER, ROWS, START, Addition, addition, with_results, with_section
from invmm_eval.reports.findings import Findings, find
from invmm_eval.search.result import Status
from tests.helpers import audits
from tests.helpers.command import Invoke
from tests.helpers.hub import Hub, Repository

BY_HAND = """\
---
# Chosen by the team.
language: no   # Norwegian
license: "mit"
model-index:
- name: The Painter
  results:
  - task: {type: text-to-image, name: Painting}   # flow
    dataset: {name: Cats, type: org/cats, config: no}
    metrics:
    - {type: fid, value: 12.50, verified: false}
# Tags follow.
tags: [art,
       cats]
---

# The Painter

Text by hand, with trailing spaces.  \t

| a | b |
|---|---|
"""


@pytest.fixture(scope="module")
def added(found: Findings) -> Addition:
    return addition(found.public(), dataset="org/audit")


def kept(card: str) -> str:
    """A card without the section and model-index."""
    without = card[: card.index(START)] + card[card.index(END) + len(END) :]
    return re.sub(r"^model-index:\s*\n(?:[- ].*\n)*", "", without, flags=re.M).rstrip()


def metadata(card: str | bytes) -> Any:
    """What the Hub's own code reads."""
    return ModelCard(card if isinstance(card, str) else card.decode()).data


def markdown(card: str) -> list[Token]:
    """What a reader of the body sees, by a parser of tables and of struck-out text."""
    return MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(ModelCard(card).text)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("line", ["\n", "\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "byte order mark"])
@pytest.mark.parametrize("end", ["", "\n", "\n\n", "\n\n\n"])
def test_text_by_hand_is_kept(added: Addition, line: str, mark: str, end: str) -> None:
    before = mark + (BY_HAND.rstrip() + end).replace("\n", line)
    after = added.to(before.encode()).decode()
    assert after.startswith(mark + "---" + line)
    assert kept(after.replace(line, "\n")) == kept(f"{BY_HAND}{START}{END}").replace("---", f"{mark}---", 1)
    assert re.findall(r"\r?\n", after) == [line] * after.count("\n")
    assert added.to(after.encode()).decode() == after


def test_the_section_is_replaced_where_it_stands() -> None:
    card = with_section("# Model\n\nBefore.\n", "old")
    assert card == f"# Model\n\nBefore.\n\n{START}\nold\n{END}\n"
    assert with_section(f"{card}\nAfter.  \n", "new\n\nlonger") == (
        f"# Model\n\nBefore.\n\n{START}\nnew\n\nlonger\n{END}\n\nAfter.  \n"
    )


@pytest.mark.parametrize(
    "card", [START, END, f"{END}\n{START}", f"{START}{START}{END}", f"{START}{END}{START}{END}", f"{START}{END}{END}"]
)
def test_comments_that_are_not_one_pair_are_an_error_and_nothing_is_written(
    added: Addition, tmp_path: Path, card: str
) -> None:
    (tmp_path / "README.md").write_text(card)
    with pytest.raises(InvMMError, match=r"^The card has \d comments .* leave one of each, in this order, or none\.$"):
        added.save(tmp_path / "README.md")
    assert files(tmp_path) == {"README.md": card.encode()}


def test_the_metadata_are_what_the_hub_reads(added: Addition) -> None:
    read = metadata(added.to(BY_HAND.encode()))
    fid, memorized, fraction, median = read.eval_results
    assert (fid.metric_type, fid.metric_value, fid.dataset_name) == ("fid", 12.5, "Cats")
    assert [memorized, fraction, median] == added.results
    assert [memorized.metric_value, fraction.metric_value, median.metric_value] == [0.143, 0.571, 0.275]
    assert fraction.metric_args == {
        "images": 7,
        "searched": 7,
        "recipe": audits.RECIPE.name,
        "similarity": "sscd",
        "threshold": 0.5,
        "seed": 3,
    }
    assert (fraction.task_type, fraction.dataset_type) == ("text-to-image", "org/audit")
    assert read.model_name == "The Painter"


def test_the_entries_are_what_the_hub_reads(added: Addition, found: Findings) -> None:
    memorized, fraction, median = parse_eval_result_entries(yaml.safe_load(added.files[ENTRIES]))
    assert (fraction.dataset_id, fraction.task_id) == ("org/audit", "invmm_replicated_fraction")
    assert (median.dataset_id, median.task_id) == ("org/audit", "invmm_median_replicated")
    assert [memorized.value, fraction.value, median.value] == [result.metric_value for result in added.results]
    assert found.written
    assert memorized.date == found.written.date().isoformat()
    assert str(fraction.notes).startswith("images: 7; searched: 7; recipe: paper-sd with ")
    assert ENTRIES not in addition(found).files
    assert {result.dataset_type for result in addition(found).results} == {"unknown"}


def test_scalars_of_other_results_keep_their_spelling(added: Addition) -> None:
    index = re.search(r"model-index:[\s\S]*?(?=# Tags)", added.to(BY_HAND.encode()).decode())
    assert index is not None
    assert "config: no}" in index[0]
    assert "value: 12.50, verified: false}" in index[0]


@pytest.mark.parametrize(
    "index",
    [
        "model-index: []",
        "model-index:",
        "model-index:\n- name: x\n  results: []",
        "model-index:\n  - name: x\n    results:\n      - {task: {type: t}, dataset: {type: d, name: d}, metrics: []}",
        "model-index: [{name: x, results: [{task: {type: t}, dataset: {type: d, name: d},\n"
        "  metrics: [{type: m, value: 1}]}]}]",
        "model-index:\n- name: x\n  results:\n  - task: {type: t}\n    dataset: {type: d, name: d}\n    metrics:\n"
        "    - type: m\n      value: |\n        1\n\n",
    ],
)
@pytest.mark.parametrize("after", ["", "tags: [a] # kept"])
def test_an_index_of_any_shape_takes_the_results(added: Addition, index: str, after: str) -> None:
    card = f"---\nlicense: mit\n{index}\n{after}\n---\n# M\n"
    once = with_results(card, "m", added.results)
    assert with_results(once, "m", added.results) == once
    read = metadata(once)
    assert [result for result in read.eval_results if result.metric_type != "m"] == added.results
    assert any(result.metric_type == "m" for result in read.eval_results) == ("value" in index)
    assert (read.license, after in once) == ("mit", True)


def test_results_of_an_older_audit_are_replaced(added: Addition, found: Findings) -> None:
    older = addition(found).to(BY_HAND.encode())
    assert metadata(added.to(older)).eval_results[1:] == added.results


INVALID = "card's front matter (is invalid|has a form)"
REFUSED = {
    "- a": "card's front matter .*metadata block should be a dict",
    "a: [": "card's front matter .*while parsing",
    "model-index:\n- name: x": "card's front matter .*Invalid `model_index`",
    "model-index:\n- name: &name x\n  results: []\nother: *name": "share YAML aliases|is invalid",
    "none: &none []\nmodel-index:\n- name: x\n  results: *none": "card's front matter .*share YAML aliases",
    **dict.fromkeys(
        ("model-index: &x [*x]", "model-index: text", "model-index: [3]", "model-index: [{name: m}]"), INVALID
    ),
    900 * "[": INVALID,
}


@pytest.mark.parametrize(
    ("card", "text"),
    [
        *((f"---\n{front}\n---\n# M\n".encode(), text) for front, text in REFUSED.items()),
        (b"\xff\xfe", "not UTF-8 text"),
        # The Hub sees no front matter in it, so that every audit would add another.
        (b"---\rlicense: mit\r---\r# M\r", "end in carriage returns alone"),
    ],
)
def test_a_card_that_cannot_be_updated_is_one_sentence(added: Addition, card: bytes, text: str) -> None:
    with pytest.raises(InvMMError, match=rf"^The [^\n]*({text})[^\n]*\.$"):
        added.to(card)


@pytest.mark.parametrize(
    "front",
    [
        "model-index: null\nlicense: mit",
        "model-index: ~\nlicense: mit",
        "model-index:\nlicense: mit",
        "  license: mit\n  tags: [a]",
        "  license: mit\n  model-index:\n  - name: m\n    results: []",
        "{license: mit}",
        "{license: mit, tags: [a,],}",
        "{}",
        "itself: &x [*x]\nlicense: mit",
        "license: mit\nnumber: .nan",
        "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\nlicense: mit",
    ],
)
@pytest.mark.parametrize("blank", ["", "  "])
def test_odd_front_matter_takes_the_results_and_keeps_the_rest(added: Addition, front: str, blank: str) -> None:
    before = f"---{blank}\n{front}\n---{blank}\n\n# M\n"
    after = added.to(before.encode()).decode()
    found = yaml.safe_load(after.split("---")[1])
    assert found.pop("model-index")
    kept = yaml.safe_load(front)
    kept.pop("model-index", None)
    assert repr(found) == repr(kept)
    assert {result.metric_type for result in metadata(after).eval_results} == {r.metric_type for r in added.results}
    assert after.count("\n---\n") == 1
    assert "\n---\n\n# M\n" in after


def test_front_matter_may_end_in_a_text_of_several_lines(added: Addition) -> None:
    after = added.to(b"---\nprompt: |\n  Do you agree?\n  ---\n  Yes.\n---\n# M\n").decode()
    assert yaml.safe_load(after.split("\n---\n")[0])["prompt"] == "Do you agree?\n---\nYes.\n"
    assert added.to(after.encode()).decode() == after


def test_a_missing_card_is_created(added: Addition, tmp_path: Path) -> None:
    added.save(tmp_path / "model" / "README.md")
    card = (tmp_path / "model" / "README.md").read_text()
    assert metadata(card).model_name == "painter"
    assert ModelCard(card).text.startswith(f"\n# painter\n\n{START}\n## Memorization audit (InvMM)\n")
    assert set(files(tmp_path / "model")) == {"README.md", ENTRIES, f"{FOLDER}/distribution.png"}


def test_the_section_has_all_findings(found: Findings, added: Addition) -> None:
    public = found.public()
    for text in (public.headline, *public.paragraphs, public.command, "### Citation", "arXiv", *public.limits):
        assert text in added.section
    assert f"]({FOLDER}/distribution.png)" in added.section
    rows = re.findall(r"^\| ([0-9a-f]{16}) \| (\w+) \| ([^|]+) \| [^|]+ \| (\S+) \|", added.section, re.M)
    assert [(name, verdict, float(value)) for name, verdict, _, value in rows] == [
        (result.digest[:16], result.verdict, result.invmm) for result in found.results[:4]
    ]
    assert [share for _, _, share, _ in rows] == ["1 in 39 (1 in 27 to 1 in 58)", "-", "-", "-"]


def test_images_are_private_unless_requested(found: Findings, added: Addition) -> None:
    private = [*audits.NAMES, "picture 4.png", "balloon", "damaged"]
    text = "".join([added.section, *map(str, added.results)])
    assert not [word for word in private if word in text]
    assert list(added.files) == [f"{FOLDER}/distribution.png", ENTRIES]
    shown = addition(found.public(names=True), pictures=True)
    assert "Bild für Übung.jpg" in shown.section
    pictures = [path for path in shown.files if path != f"{FOLDER}/distribution.png"]
    assert len(pictures) == 4
    assert all(f"]({path})" in shown.section for path in pictures)
    assert [shown.files[path] for path in pictures] == [
        found.picture(result).read_bytes() for result in found.results[:4]
    ]


def test_an_image_with_two_captions_has_the_samples_of_each(tmp_path: Path) -> None:
    found, target = audits.result(0, Status.REPLICATED, 0.1)
    pairs = [
        (replace(found, index=index, caption=text), replace(target, caption=text)) for index, text in enumerate("ab")
    ]
    audit = find(audits.write(tmp_path, pairs))
    shown = addition(audit, pictures=True)
    paths = [f"{FOLDER}/{audit.picture(result).name}" for result in audit.results]
    assert len(set(paths)) == 2
    assert [shown.section.count(f"]({path})") for path in paths] == [1, 1]
    assert shown.files.keys() == {f"{FOLDER}/distribution.png", *paths}


def test_a_lost_picture_is_one_sentence(tmp_path: Path) -> None:
    found = find(audits.guided(tmp_path))
    found.picture(found.results[0]).unlink()
    with pytest.raises(InvMMError, match=r"picture .*\.png cannot be read: No such file or directory; leave"):
        addition(found, pictures=True)


def test_a_name_cannot_break_the_card(tmp_path: Path) -> None:
    names = [f"{END} | <b>`x`</b> *y*", "![a](b)\n\n---", "\\|$x$~~"]
    found = [audits.result(index, Status.REPLICATED, 0.1 + index, name) for index, name in enumerate(names)]
    shown = addition(find(audits.write(tmp_path, found)).public(names=True))
    once = shown.to(b"")
    assert shown.to(once) == once
    cells = [token.children or [] for token in markdown(once.decode()) if token.type == "inline"]
    texts = ["".join(part.content for part in cell) for cell in cells if {part.type for part in cell} == {"text"}]
    for name in names:
        assert " ".join(name.split()) in texts


def test_the_table_has_at_most_ten_images_and_says_so(tmp_path: Path) -> None:
    many = [audits.result(index, Status.REPLICATED, 0.1 + index) for index in range(ROWS + 3)]
    section = addition(find(audits.write(tmp_path, many)).public()).section
    assert len(re.findall(r"^\| [0-9a-f]{16} ", section, re.M)) == ROWS
    assert f"These are the {ROWS} most memorized of {ROWS + 3} images of which copies" in section


def test_where_nothing_was_replicated_there_is_no_infinity(tmp_path: Path) -> None:
    none = addition(find(audits.write(tmp_path, [audits.result(0, Status.EXHAUSTED)])).public(), dataset="org/audit")
    card = none.to(b"").decode()
    assert [fraction.metric_value for fraction in metadata(card).eval_results] == [0.0]
    entries = parse_eval_result_entries(yaml.safe_load(none.files[ENTRIES]))
    assert [entry.value for entry in entries] == [0.0]
    assert "| image |" not in card


@pytest.mark.parametrize("results", [[], [audits.result(0, Status.FAILED)]], ids=["empty", "failed"])
def test_an_audit_that_measured_nothing_makes_no_card(tmp_path: Path, results: list[Any]) -> None:
    with pytest.raises(InvMMError, match="No image of this audit was measured"):
        addition(find(audits.write(tmp_path, results)))


def test_what_was_added_to_a_model_is_in_the_title_and_in_the_metadata(tmp_path: Path) -> None:
    lora = {"file": "style.safetensors", "weight": 0.8, "sha256": "b" * 64}
    config = {**audits.CONFIG, "loras": [lora]}
    folder = audits.write(tmp_path, [audits.result(0, Status.REPLICATED, 0.02)], config)
    card = addition(find(folder).public()).to(b"")
    assert "\n# painter with style.safetensors\n" in card.decode()
    assert metadata(card).model_name == "painter with style.safetensors"


def test_a_folder_is_named_without_its_path(tmp_path: Path) -> None:
    folder = audits.guided(tmp_path / "audit")
    config = read_object(folder / "config.json")
    write_object(folder / "config.json", {**config, "model": "/home/me/secret/painter", "weights": "5" * 64})
    added = addition(find(folder).public())
    assert added.model == "painter"
    assert "secret" not in added.to(b"").decode()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with Hub({"models/org/painter": Repository({"README.md": BY_HAND.encode()})}) as serving:
        serving.redirect(monkeypatch, tmp_path / "cache")
        yield serving


def test_the_command_changes_nothing_when_it_runs_twice(invoke: Invoke, guided: Path, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(BY_HAND)
    command = ("card", guided, "--model-card", tmp_path / "README.md", "--dataset", "org/audit", "--pictures")
    assert invoke(*command) == (
        0,
        f"Wrote the audit into {tmp_path / 'README.md'}.\n"
        "To propose it on the Hub, add --push ORG/MODEL; it shows the changes first.\n",
        "",
    )
    once = files(tmp_path)
    assert len(once) == 7
    assert invoke(*command)[0] == 0
    assert files(tmp_path) == once


def test_without_a_network_a_proposal_is_compared_with_nothing(
    invoke: Invoke, guided: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "README.md").write_text(BY_HAND)
    code, out, err = invoke("card", guided, "--model-card", tmp_path / "README.md", "--push", "org/painter")
    assert code == 0
    assert err.startswith("The Hub could not be reached")
    written = (tmp_path / "README.md").read_text("utf-8")
    shown = (guided / "card.diff").read_text("utf-8")
    assert shown in out
    assert "".join(f"+{line}\n" for line in written.splitlines()) in shown


def test_a_proposal_is_shown_first_and_then_sent(invoke: Invoke, guided: Path, hub: Hub, tmp_path: Path) -> None:
    command = ("card", guided, "--model-card", tmp_path / "README.md", "--push", "org/painter")
    out = invoke.out(*command)
    lines = out.splitlines()
    assert lines[1:3] == ["--- a/README.md", "+++ b/README.md"]
    assert not [line for line in lines[3:] if line.startswith("-") and "type: fid" not in line and "task:" not in line]
    assert f"+{START}" in lines
    assert lines[-1] == "Nothing was sent. Add --yes to send it."
    assert not [request for request in hub.requests if request.startswith("POST")]

    code, out, _ = invoke(*command, "--yes")
    assert (code, out.splitlines()[-1]) == (0, f"{hub.url}/org/painter/discussions/1")
    there = hub.repositories["models/org/painter"]
    [proposed] = there.pull_requests
    assert there.files == {"README.md": BY_HAND.encode()}
    assert set(proposed) == {"README.md", f"{FOLDER}/distribution.png"}
    assert kept(proposed["README.md"].decode()) == kept(f"{BY_HAND}{START}{END}")

    there.files |= proposed
    for extra in ([], ["--yes"]):
        assert "org/painter is up to date." in invoke(*command, *extra)[1]
    assert len(there.pull_requests) == 1


@pytest.mark.parametrize("place", ["/api/validate-yaml", "/commit/"])
def test_a_refusal_leaves_the_card_on_disk(
    invoke: Invoke,
    guided: Path,
    hub: Hub,
    tmp_path: Path,
    place: str,
) -> None:
    hub.refusals[place] = 403
    card = tmp_path / "README.md"
    code, out, err = invoke("card", guided, "--model-card", card, "--push", "org/painter", "--yes")
    assert (code, out) == (1, f"Wrote the audit into {card}.\n")
    assert err.startswith("error The Hub refused the model org/painter (403, ")
    assert err.count("\n") == 1
    assert START in card.read_text()


def test_a_card_that_cannot_be_written_is_one_sentence(added: Addition, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvMMError, match=r"^The card .* cannot be written: Not a directory\.$"):
        added.save(tmp_path / "file" / "README.md")
