"""The section about an audit in a model card, and the metadata for the Hub.

The section stands between two comments and is replaced on each update; the rest of the card is kept byte for byte. In
the front matter only ``model-index`` changes, and in it only the results of earlier audits. (The Hub's ``ModelCard``
would rewrite all of it without its comments, and turn the language ``no`` into ``false``.)
"""

import json
import pickle
import re
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from operator import methodcaller
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import yaml
from huggingface_hub import EvalResult, EvalResultEntry, ModelCard, eval_result_entries_to_yaml
from huggingface_hub.repocard import REGEX_YAML_BLOCK
from huggingface_hub.repocard_data import eval_results_to_model_index
from huggingface_hub.utils import yaml_dump  # type: ignore[attr-defined]

from invmm_eval.audits.folder.files import write_atomically, write_to
from invmm_eval.audits.results import share_is_known
from invmm_eval.errors import InvMMError, on_disk
from invmm_eval.reports.figures import distribution, save
from invmm_eval.reports.findings import Findings
from invmm_eval.search.fields import present
from invmm_eval.search.result import Result
from invmm_eval.search.sentence import one_in
from invmm_eval.search.status import MEMORIZED, Verdict

START = "<!-- invmm-eval: the audit starts here; what is written by hand before its end is lost -->"
END = "<!-- invmm-eval: the audit ends here -->"
"""The comments around the section, which must not change: they mark it in the cards that users have."""
FOLDER = "memorization-audit"
"""Folder of the figure and the pictures, next to the card."""
ENTRIES = ".eval_results/invmm.yaml"
ROWS = 10
"""Maximum number of images in the table."""
UNKNOWN = "unknown"
"""Name of the data set if the images are not published; the Hub requires one."""

_MEMORIZED, _FRACTION, _MEDIAN = (
    f"invmm_{name}" for name in ("memorized_fraction", "replicated_fraction", "median_replicated")
)
_NAMES = {
    _MEMORIZED: f"InvMM: fraction of images of which at least {one_in(MEMORIZED)} plain samples is a copy",
    _FRACTION: "InvMM: fraction of images that were replicated from chosen noise",
    _MEDIAN: "InvMM: median of the replicated images, nats per dimension",
}
_FRONT = re.compile(r"(\s*---)[ \t]*([\r\n]+[\S\s]*?[\r\n]+---)[ \t]*(?=[\r\n]|$)")
_MARKUP = re.compile(r"[\\`*_\[\]<>|&~$]")


def _escaped(text: str) -> str:
    """Text in one line that Markdown shows literally."""
    return _MARKUP.sub(r"\\\g<0>", " ".join(text.split()))


TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("invmm_eval.reports"),
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    undefined=jinja2.StrictUndefined,
)
"""Templates of texts for the Hub; the filter ``md`` escapes Markdown."""
TEMPLATES.filters["md"] = _escaped


@dataclass(frozen=True)
class Addition:
    """What an audit adds to a model card.

    Attributes:
        model: Name of the model, for a card that has none.
        section: The section, in Markdown.
        results: The results for the Hub's ``model-index``.
        files: Files next to the card, by path.
    """

    model: str
    section: str
    results: list[EvalResult]
    files: Mapping[str, bytes]

    def to(self, card: bytes) -> bytes:
        """The card with the section and the results; an empty card gets a heading.

        Raises:
            InvMMError: The card is not UTF-8, its section's marks are not one pair, or its front matter is invalid.
        """
        try:
            text = card.decode()
        except UnicodeDecodeError as error:
            raise InvMMError("The card is not UTF-8 text, which the Hub requires; convert it first.") from error
        mark = "\ufeff" if text.startswith("\ufeff") else ""
        text = text.removeprefix(mark) or f"# {self.model}\n"
        return (mark + with_results(with_section(text, self.section), self.model, self.results)).encode()

    def save(self, path: Path) -> None:
        """Write or update the card and the files next to it.

        Raises:
            InvMMError: The card cannot be updated, or a file cannot be read or written.
        """
        with on_disk(f"The card {path} cannot be read"):
            after = self.to(path.read_bytes() if path.exists() else b"")
        with on_disk(f"The card {path} cannot be written"):
            for name, content in self.files.items():
                (path.parent / name).parent.mkdir(parents=True, exist_ok=True)
                write_atomically(path.parent / name, methodcaller("write_bytes", content))
            write_to(path, methodcaller("write_bytes", after))


def addition(findings: Findings, *, pictures: bool = False, dataset: str | None = None) -> Addition:
    """What an audit adds to a model's card.

    Args:
        findings: The audit, as :meth:`Findings.public` returns it.
        pictures: Whether to show the most memorized images with their samples.
        dataset: The data set on the Hub that holds the images or the results. If None, no ``.eval_results`` is
            written, as its entries belong to a data set.

    Raises:
        InvMMError: No image was measured, or a picture cannot be read.
    """
    if not findings.measured:
        raise InvMMError("No image of this audit was measured, so there is nothing to add to a card.")
    found = findings.counts[Verdict.MEMORIZED] + findings.counts[Verdict.REPLICABLE]
    top = list(findings.results[: min(found, ROWS)])
    shown = {result.index: f"{FOLDER}/{findings.picture(result).name}" for result in top} if pictures else {}
    section = TEMPLATES.get_template("card.md").render(
        columns=present("table", top, findings.describe),
        findings=findings,
        found=found,
        figure=f"{FOLDER}/distribution.png",
        pictures=shown,
        top=top,
    )
    files = {f"{FOLDER}/distribution.png": png(findings)}
    files |= {shown[result.index]: sheet(findings, result) for result in top if pictures}
    if dataset:
        files[ENTRIES] = yaml_dump(eval_result_entries_to_yaml(_entries(findings, dataset)), sort_keys=False).encode()
    return Addition(findings.short_model, section, _results(findings, dataset), files)


def with_section(card: str, section: str) -> str:
    """The card with the section, which replaces an earlier one or is added at the end.

    Raises:
        InvMMError: The comments that mark the section are not one pair.
    """
    starts, ends = card.count(START), card.count(END)
    start, end = card.find(START), card.find(END)
    if starts != ends or starts > 1 or end < start:
        raise InvMMError(
            f"The card has {starts} comments that mark the start of the audit and {ends} that mark its end; leave one "
            "of each, in this order, or none."
        )
    line = _line_end(card)
    marked = f"{START}\n{section.strip()}\n{END}".replace("\n", line)
    if starts:
        return card[:start] + marked + card[end + len(END) :]
    gap = "" if not card.strip() or card.endswith(2 * line) else line if card.endswith(line) else 2 * line
    return card + gap + marked + line


def with_results(card: str, model: str, results: list[EvalResult]) -> str:
    """The card with all results of an audit in its ``model-index``, which replace those of earlier audits.

    Raises:
        InvMMError: The front matter is invalid.
    """
    if plain := _FRONT.match(card):  # the Hub's own code knows no blanks after the marks
        card = "".join(plain.groups()) + card[plain.end() :]
    line, front = _line_end(card), REGEX_YAML_BLOCK.search(card)
    index = eval_results_to_model_index(model, results)
    if front is None and line == "\r":
        raise InvMMError("The card's lines end in carriage returns alone, which the Hub does not read; use line feeds.")
    if front is None:
        return f"---{line}{_block(_node(index), line)}{line}---{line}{line}{card}"
    before = _data(card)
    try:
        changed = _changed(card, front, index, line)
        after = _data(changed)
        held = [result for entry in after["model-index"] for result in entry["results"]]
        same = _same(after, before) and all(result in held for result in index[0]["results"])
    except (AttributeError, KeyError, TypeError, RecursionError, yaml.YAMLError) as error:
        raise InvMMError(
            "The card's front matter has a form that cannot be added to; write its keys one below the other, and "
            "model-index as a list of models with results and metrics."
        ) from error
    if not same:
        raise InvMMError(
            "The model-index of the card's front matter and other parts share YAML aliases; write them out."
        )
    return changed


def _changed(card: str, front: re.Match[str], index: Any, line: str) -> str:
    """The card with an index in its front matter."""
    start, end = front.span(2)
    root = yaml.compose(front[2], yaml.SafeLoader)
    pairs = _pairs(root)
    if "model-index" in pairs:
        key, old = pairs["model-index"]
        head, rest = card[: start + key.start_mark.index], card[start + _end(old, front[2]) :]
        block = _block(_merged(old, _node(index)), line, key.start_mark.column)
        return head + block + rest
    if root and root.flow_style:
        inside = start + root.end_mark.index - 1
        comma = ", " if root.value else ""
        return f'{card[:inside].rstrip().rstrip(",")}{comma}"model-index": {json.dumps(index)}{card[inside:]}'
    indent = root.start_mark.column if root else 0
    block = " " * indent + _block(_node(index), line, indent)
    return card[:end] + (line if front[2] else "") + block + card[end:]


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether front matter is equal but for the index; it may hold NaN and refer to itself, which == does not take."""
    kept = [pickle.dumps({**data, "model-index": None}) for data in (one, other)]
    return kept[0] == kept[1]


def _data(card: str) -> dict[str, Any]:
    """The front matter, validated by the Hub's own code."""
    try:
        ModelCard(card)
        return dict(yaml.safe_load(f"{REGEX_YAML_BLOCK.search(card)[2]}\n") or {})  # type: ignore[index]
    except Exception as error:  # the Hub's code raises nearly anything about odd values
        reason = " ".join(str(error).split()).rstrip(".")
        raise InvMMError(f"The card's front matter is invalid: {reason}.") from error


def _merged(old: yaml.Node, new: yaml.Node) -> yaml.Node:
    """The old index with the new results in place of those of earlier audits; scalars keep their spelling."""
    if old.tag == "tag:yaml.org,2002:null":
        return new
    lists = [_pairs(entry)["results"][1] for entry in old.value]
    for results in lists:
        for metrics in (_pairs(result)["metrics"][1] for result in results.value):
            metrics.value = [metric for metric in metrics.value if _pairs(metric)["type"][1].value not in _NAMES]
        results.value = [result for result in results.value if _pairs(result)["metrics"][1].value]
        results.flow_style = False
    if not lists:
        return new
    lists[0].value += _pairs(new.value[0])["results"][1].value
    return old


def _pairs(mapping: yaml.Node | None) -> dict[str, tuple[yaml.Node, yaml.Node]]:
    return {key.value: (key, value) for key, value in mapping.value} if mapping else {}


def _node(data: object) -> yaml.Node:
    node = yaml.compose(yaml_dump(data, sort_keys=False), yaml.SafeLoader)
    assert node is not None
    return node


def _block(index: yaml.Node, line: str, indent: int = 0) -> str:
    """The key and the index; lines but the first are indented."""
    mapping = yaml.MappingNode("tag:yaml.org,2002:map", [(_node("model-index"), index)])
    return (
        str(yaml.serialize(mapping, Dumper=yaml.SafeDumper, allow_unicode=True))
        .rstrip("\n")
        .replace("\n", line + " " * indent)
    )


def _end(node: yaml.Node, text: str) -> int:
    """The end of a node in the text; PyYAML puts the end of a block after the comments that follow it."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[-1] if isinstance(last, tuple) else last, text)
    return len(text[: node.end_mark.index].rstrip())


def _line_end(text: str) -> str:
    found = re.search(r"\r\n|\r|\n", text)
    return found[0] if found else "\n"


def _scores(findings: Findings) -> dict[str, float]:
    """The numbers in the metadata, which cannot hold infinity, to three significant digits."""
    invmm = findings.results.keys[:, 2]
    replicated = invmm[np.isfinite(invmm)].tolist()
    known = share_is_known(findings.results.examples)
    scores = {_MEMORIZED: findings.counts[Verdict.MEMORIZED] / findings.total} if known else {}
    scores |= {_FRACTION: len(replicated) / findings.total}
    scores |= {_MEDIAN: statistics.median(replicated)} if replicated else {}
    return {name: float(f"{score:.3g}") for name, score in scores.items()}


def _setup(findings: Findings) -> dict[str, Any]:
    """The settings that a number depends on."""
    return {
        "images": findings.total,
        "searched": findings.images,
        "recipe": findings.recipe.name,
        "similarity": findings.config["similarity"]["name"],
        "threshold": findings.threshold,
        "seed": findings.config["seed"],
    }


def _results(findings: Findings, dataset: str | None) -> list[EvalResult]:
    guided = any(scale != 1 for scale in findings.recipe.guidance)
    return [
        EvalResult(
            task_type="text-to-image" if guided else "unconditional-image-generation",
            dataset_type=dataset or UNKNOWN,
            dataset_name=dataset or "Audited images, not published",
            metric_type=kind,
            metric_name=_NAMES[kind],
            metric_value=value,
            metric_args=_setup(findings),
        )
        for kind, value in _scores(findings).items()
    ]


def _entries(findings: Findings, dataset: str) -> list[EvalResultEntry]:
    notes = "; ".join(f"{name}: {value}" for name, value in _setup(findings).items())
    date = findings.written.date().isoformat() if findings.written else None
    return [EvalResultEntry(dataset, kind, value, date=date, notes=notes) for kind, value in _scores(findings).items()]


def png(findings: Findings) -> bytes:
    """The figure of the distribution."""
    file = BytesIO()
    save(distribution(findings), file)
    return file.getvalue()


def sheet(findings: Findings, result: Result) -> bytes:
    """The picture file of an image and its samples.

    Raises:
        InvMMError: The file cannot be read.
    """
    path = findings.picture(result)
    with on_disk(f"The audit's picture {path} cannot be read", "; leave --pictures out."):
        return path.read_bytes()
