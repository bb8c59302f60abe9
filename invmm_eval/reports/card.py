"""A section of a model's card that tells an audit, and the same as metadata that the Hub reads.

The section stands between two comments and is written anew each time; everything else in the card stays as it is, byte
for byte. Of the front matter only ``model-index`` is touched, and in it only what an audit put there before: the Hub's
own ``ModelCard`` would write all of it anew, without its comments, and make ``false`` of the language ``no``.
"""

import re
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import jinja2
import yaml
from huggingface_hub import EvalResult, EvalResultEntry, ModelCard, eval_result_entries_to_yaml
from huggingface_hub.repocard import REGEX_YAML_BLOCK
from huggingface_hub.repocard_data import eval_results_to_model_index
from huggingface_hub.utils import yaml_dump  # type: ignore[attr-defined]

from invmm_eval.errors import InvMMError
from invmm_eval.reports.figures import distribution
from invmm_eval.reports.findings import LIMITS, Findings
from invmm_eval.search.fields import present
from invmm_eval.search.result import Result, Status

START = "<!-- invmm-eval: the audit starts here; what is written by hand before its end is lost -->"
END = "<!-- invmm-eval: the audit ends here -->"
FOLDER = "memorization-audit"
"""Where the figure and the pictures lie, beside the card."""
ENTRIES = ".eval_results/invmm.yaml"
ROWS = 10
"""So many of the most memorized images are in the table."""
UNKNOWN = "unknown"
"""What is written for the data set where the images are not published: the Hub demands one."""

_FRACTION, _MEDIAN = "invmm_replicated_fraction", "invmm_median_replicated"
_NAMES = {
    _FRACTION: "InvMM: fraction of the images that were replicated",
    _MEDIAN: "InvMM: median of the replicated images, nats per dimension",
}
_MARKUP = re.compile(r"[\\`*_\[\]<>|&~$]")


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is, in one line."""
    return _MARKUP.sub(r"\\\g<0>", " ".join(text.split()))


TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("invmm_eval.reports"),
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    undefined=jinja2.StrictUndefined,
)
"""What is written for the Hub; the filter ``md`` shows a text as it is."""
TEMPLATES.filters["md"] = _escaped


@dataclass(frozen=True)
class Addition:
    """What an audit adds to a model's card.

    Attributes:
        model: What the card calls the model where it does not say so itself.
        section: Markdown.
        results: The same as the Hub's ``model-index`` tells it.
        files: What lies beside the card, by path.
    """

    model: str
    section: str
    results: list[EvalResult]
    files: Mapping[str, bytes]

    def to(self, card: bytes) -> bytes:
        """The card with the section and the results in it; an empty one gets a heading.

        Raises:
            InvMMError: The card is not UTF-8, the comments that mark the section are not one pair, or the front matter
                is not what the Hub takes.
        """
        try:
            text = card.decode()
        except UnicodeDecodeError as error:
            raise InvMMError("The card is not text in UTF-8, as the Hub wants it; convert it first.") from error
        mark = "\ufeff" if text.startswith("\ufeff") else ""
        text = text.removeprefix(mark) or f"# {self.model}\n"
        return (mark + with_results(with_section(text, self.section), self.model, self.results)).encode()

    def save(self, path: Path) -> None:
        """Write or update the card, and the files beside it.

        Raises:
            InvMMError: The card is not one that can be updated, or a file cannot be read or written.
        """
        try:
            after = self.to(path.read_bytes() if path.exists() else b"")
            for name, content in self.files.items():
                (path.parent / name).parent.mkdir(parents=True, exist_ok=True)
                (path.parent / name).write_bytes(content)
            partial = path.with_name(f"{path.name}.partial")
            partial.write_bytes(after)
            partial.replace(path)
        except OSError as error:
            raise InvMMError(f"The card {path} cannot be written: {error.strerror or error}.") from error


def addition(findings: Findings, *, pictures: bool = False, dataset: str | None = None) -> Addition:
    """What an audit adds to a model's card.

    Args:
        findings: The audit, as :meth:`Findings.public` gives it.
        pictures: Whether the most memorized images are shown, each with its samples.
        dataset: The data set on the Hub that holds the images or the results. Without one there is no
            ``.eval_results``, whose entries each belong to a data set.

    Raises:
        InvMMError: No image was measured, or a picture cannot be read.
    """
    if not findings.measured:
        raise InvMMError("No image of this audit was measured, so there is nothing to tell in a card.")
    top = [result for result in findings.results if result.status is Status.REPLICATED][:ROWS]
    shown = {result.digest: f"{FOLDER}/{findings.picture(result).name}" for result in top} if pictures else {}
    section = TEMPLATES.get_template("card.md").render(
        columns=[field for field in present("card", top) if field.name != "status"],
        findings=findings,
        figure=f"{FOLDER}/distribution.png",
        limits=LIMITS,
        pictures=shown,
        top=top,
    )
    files = {f"{FOLDER}/distribution.png": png(findings)}
    files |= {shown[result.digest]: sheet(findings, result) for result in top if pictures}
    if dataset:
        files[ENTRIES] = yaml_dump(eval_result_entries_to_yaml(_entries(findings, dataset)), sort_keys=False).encode()
    return Addition(Path(findings.config["model"].partition("@")[0]).name, section, _results(findings, dataset), files)


def with_section(card: str, section: str) -> str:
    """The card with the section in place of the one that it has, or else at its end.

    Raises:
        InvMMError: The comments that mark the section are not one pair.
    """
    starts, ends = card.count(START), card.count(END)
    start, end = card.find(START), card.find(END)
    if starts != ends or starts > 1 or end < start:
        raise InvMMError(
            f"The card has {starts} comments that say where the audit starts and {ends} that say where it ends; leave "
            "one of each, in this order, or none."
        )
    line = _line_end(card)
    marked = f"{START}\n{section.strip()}\n{END}".replace("\n", line)
    if starts:
        return card[:start] + marked + card[end + len(END) :]
    gap = "" if not card.strip() or card.endswith(2 * line) else line if card.endswith(line) else 2 * line
    return card + gap + marked + line


def with_results(card: str, model: str, results: list[EvalResult]) -> str:
    """The card with results in its ``model-index``, in place of those that an audit put there before.

    Args:
        card: The card.
        model: What ``model-index`` calls the model where there is none yet.
        results: All of them of an audit.

    Raises:
        InvMMError: The front matter is not what the Hub takes.
    """
    line, front = _line_end(card), REGEX_YAML_BLOCK.search(card)
    index = _node(eval_results_to_model_index(model, results))
    if front is None:
        return f"---{line}{_block(index, line)}{line}---{line}{line}{card}"
    before = _data(card)
    start, end = front.span(2)
    pairs = _pairs(yaml.compose(front[2], yaml.SafeLoader))
    if "model-index" not in pairs:
        changed = card[:end] + (line if front[2] else "") + _block(index, line) + card[end:]
    else:
        key, old = pairs["model-index"]
        head, rest = card[: start + key.start_mark.index], card[start + _end(old, front[2]) :]
        changed = head + _block(_merged(old, index), line) + rest
    if {**_data(changed), "model-index": None} != {**before, "model-index": None}:
        raise InvMMError("The card's front matter has parts that refer to model-index; write them out, then try again.")
    return changed


def _data(card: str) -> dict[str, Any]:
    """What the front matter says, once the Hub's own code has taken it."""
    try:
        ModelCard(card)
        return dict(yaml.safe_load(REGEX_YAML_BLOCK.search(card)[2]) or {})  # type: ignore[index]
    except (ValueError, yaml.YAMLError) as error:
        told = " ".join(str(error).split()).rstrip(".")
        raise InvMMError(f"The card's front matter is not what the Hub takes: {told}.") from error


def _merged(old: yaml.Node, new: yaml.Node) -> yaml.Node:
    """An index with the results of another in place of those of an audit; scalars stay as they are spelt."""
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


def _block(index: yaml.Node, line: str) -> str:
    mapping = yaml.MappingNode("tag:yaml.org,2002:map", [(_node("model-index"), index)])
    return str(yaml.serialize(mapping, Dumper=yaml.SafeDumper, allow_unicode=True)).rstrip("\n").replace("\n", line)


def _end(node: yaml.Node, text: str) -> int:
    """Where a node of the text ends; the mark of a block stands behind the comments that follow it."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[-1] if isinstance(last, tuple) else last, text)
    return len(text[: node.end_mark.index].rstrip())


def _line_end(text: str) -> str:
    """How the first line of a text ends."""
    found = re.search(r"\r\n|\r|\n", text)
    return found[0] if found else "\n"


def _scores(findings: Findings) -> dict[str, float]:
    """What is worth a number in metadata, where infinity has no place."""
    replicated = [result.invmm for result in findings.results if result.status is Status.REPLICATED]
    scores = {_FRACTION: float(findings.fraction or 0)}
    return scores | ({_MEDIAN: float(statistics.median(replicated))} if replicated else {})


def _setup(findings: Findings) -> dict[str, Any]:
    """What a number must be read with."""
    return {
        "images": findings.measured,
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
    return [EvalResultEntry(dataset, kind, value, notes=notes) for kind, value in _scores(findings).items()]


def png(findings: Findings) -> bytes:
    """The figure of the distribution, on white: a page may be dark."""
    figure = distribution(findings)
    figure.patch.set(alpha=1, facecolor="white")
    file = BytesIO()
    figure.savefig(file, dpi=120)
    return file.getvalue()


def sheet(findings: Findings, result: Result) -> bytes:
    """The file that shows an image and its samples.

    Raises:
        InvMMError: It cannot be read.
    """
    path = findings.picture(result)
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvMMError(
            f"The audit's picture {path} cannot be read: {error.strerror}; leave --pictures out."
        ) from error
