"""What the page shows, as HTML: the audit as a whole, a search under way, and what became of one image.

Pictures are within the HTML, so that looking at them writes no file and asks for none.
"""

import base64
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

from jinja2 import Environment, PackageLoader
from PIL import Image
from torch import Tensor

from invmm_eval.audits.folder.sheet import cut
from invmm_eval.reports.findings import Findings, meaning
from invmm_eval.search.fields import STATUS_WORDS, present
from invmm_eval.search.result import Check, Result, Status
from invmm_eval.search.search import Search

SIDE = 160
"""The largest side of a picture that is shown; smaller ones keep their pixels."""

Row = tuple[float, Sequence[tuple[Image.Image, float]]]
"""A guidance scale, and its samples with their similarities."""

_environment = Environment(loader=PackageLoader("invmm_eval.page", ""), autoescape=True, trim_blocks=True)


def overview(findings: Findings) -> str:
    """The audit as a whole: the verdict in words, and what was asked for."""
    return _environment.get_template("overview.html").render(findings=findings)


def caption(result: Result) -> str:
    """A few words beneath an image of an audit."""
    value = f"{result.invmm:.3f}" if result.status is Status.REPLICATED else STATUS_WORDS[result.status]
    return f"{value} · {result.name}" if result.name else value


def ready(target: Tensor) -> str:
    """An image that was not searched yet, as the model sees it."""
    _, height, width = target.shape
    return _panel(
        "ready", "Ready", picture(target), words=f"This is how the model sees it, in {width}x{height} pixels."
    )


def refused(sentence: str) -> str:
    """Why there is nothing to search."""
    return _panel("refused", "This does not work", None, words=sentence)


def under_way(search: Search, max_steps: int, threshold: float) -> str:
    """A search as it is now, with the samples of its latest check."""
    check = search.last_check
    facts = {"loss": f"{search.loss:.3f}", "KL, nats per dimension": f"{search.kl:.4f}"}
    facts["best similarity"] = f"{max(map(max, check.similarities.values())):.2f}" if check else "not checked yet"
    return _panel(
        "searching",
        f"Searching: step {search.step} of {max_steps}",
        picture(search.target.image),
        words="Each check samples the model from the noise found so far.",
        progress=search.step / max_steps,
        facts=facts,
        rows=_drawn(check),
        threshold=threshold,
    )


def outcome(
    result: Result, target: Image.Image | None, rows: Sequence[Row], threshold: float, *, heading: str | None = None
) -> str:
    """What became of one image.

    Args:
        result: Of the image.
        target: The image as the model sees it.
        rows: Its samples.
        threshold: The similarity from which on a sample counts as a copy.
        heading: What it is called; None takes how it ended.
    """
    shown = [field for field in present("html", [result]) if field.name not in ("name", "status")]
    facts = {field.title: field.full(result) for field in shown} if result.check else {}
    return _panel(
        str(result.status),
        heading or STATUS_WORDS[result.status].capitalize(),
        target,
        words=meaning(result),
        facts=facts,
        rows=rows,
        threshold=threshold,
        status=STATUS_WORDS[result.status] if heading else None,
        prompt=result.prompt,
    )


def measured(result: Result, target: Tensor, threshold: float) -> str:
    """What became of an image that was measured just now."""
    return outcome(result, picture(target), _drawn(result.check), threshold)


def kept(findings: Findings, result: Result) -> str:
    """What became of an image of an audit, with its pictures where the folder still has them."""
    target, rows = pictures(findings, result)
    return outcome(result, target, rows, findings.threshold, heading=result.name or f"Image {result.index}")


def pictures(findings: Findings, result: Result) -> tuple[Image.Image | None, Sequence[Row]]:
    """An image of an audit and its samples, cut out of their sheet and scaled down; none where there is no sheet."""
    path = findings.picture(result)
    if not result.check or not path.is_file():
        return None, []
    with Image.open(path) as sheet:
        rows = [
            (scale, [(_cut(findings, sheet, row, column), value) for column, value in enumerate(values, start=1)])
            for row, (scale, values) in enumerate(result.check.similarities.items())
        ]
        return _cut(findings, sheet, 0, 0), rows


def cover(findings: Findings, result: Result) -> Image.Image:
    """An image of an audit, scaled down; an empty one where there is no picture of it."""
    _, height, width = findings.config["backbone"]["image_shape"]
    path = findings.picture(result)
    if not result.check or not path.is_file():
        return Image.new("L", (width, height), 128)
    with Image.open(path) as sheet:
        return _cut(findings, sheet, 0, 0)


def picture(image: Tensor) -> Image.Image:
    """Of uint8 ``(C, H, W)``, scaled down where it is large."""
    pixels = image.permute(1, 2, 0).numpy()
    return _small(Image.fromarray(pixels.squeeze(2) if image.shape[0] == 1 else pixels))


def _cut(findings: Findings, sheet: Image.Image, row: int, column: int) -> Image.Image:
    return _small(cut(sheet, findings.config["backbone"]["image_shape"], row, column))


def _small(image: Image.Image) -> Image.Image:
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return image


def _drawn(check: Check | None) -> list[Row]:
    if check is None:
        return []
    return [
        (scale, [(picture(sample), value) for sample, value in zip(check.samples[scale], values, strict=True)])
        for scale, values in check.similarities.items()
    ]


def _panel(kind: str, heading: str, target: Image.Image | None, **told: Any) -> str:
    template = _environment.get_template("panel.html")
    return template.render({"kind": kind, "heading": heading, "target": target, "uri": _uri, **_NOTHING, **told})


_NOTHING: Mapping[str, Any] = {
    "words": "",
    "status": None,
    "prompt": None,
    "progress": None,
    "facts": {},
    "rows": (),
    "threshold": 0.0,
}


def _uri(image: Image.Image) -> str:
    """The picture itself as an address; small ones without loss."""
    file = BytesIO()
    image.save(file, "WEBP", quality=85, lossless=max(image.size) <= 64)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
