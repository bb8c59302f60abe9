"""The HTML of the page: an overview of the audit, a running search, and the result of one image.

Pictures are embedded in the HTML: showing them writes no file and makes no request.
"""

import base64
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

from jinja2 import Environment, PackageLoader
from PIL import Image
from torch import Tensor

from invmm_eval.plugin import Check, Findings, Result, Search, Shown, meaning, one_in, present

SIDE = 160
"""Maximum side of a picture in pixels; smaller ones are not scaled."""

Row = tuple[float, Sequence[tuple[Image.Image, float]]]
"""A guidance scale, and its samples with their similarities."""

_environment = Environment(loader=PackageLoader("invmm_ui", ""), autoescape=True, trim_blocks=True)


def overview(findings: Findings) -> str:
    """The verdict on the audit in words, and its settings."""
    return _environment.get_template("overview.html").render(findings=findings)


def caption(result: Result) -> str:
    """The caption of an image of an audit."""
    value = str(result.verdict)
    if result.plain_share and result.plain_share.rate:
        value += f", {one_in(result.plain_share.rate)}"
    return f"{result.name} · {value}" if result.name else value


def ready(target: Tensor) -> str:
    """An image before its search, as the model sees it."""
    _, height, width = target.shape
    return _panel(
        "ready", "Ready", picture(target), words=f"This is how the model sees it, in {width}x{height} pixels."
    )


def refused(sentence: str) -> str:
    """Why an image cannot be searched."""
    return _panel("refused", "This does not work", None, words=sentence)


def running(search: Search, max_steps: int, threshold: float) -> str:
    """A running search, with the samples of its latest check."""
    check = search.last_check
    ended = search.step >= max_steps or bool(check and check.passed)
    return _panel(
        "searching",
        "Estimating how many plain samples are copies" if ended else f"Searching: step {search.step} of {max_steps}",
        picture(search.target.image),
        words="These are samples from the noise that was found so far." if check else "No samples were drawn yet.",
        progress=1 if ended else search.step / max_steps,
        rows=_drawn(check),
        threshold=threshold,
    )


def outcome(
    result: Result, target: Image.Image | None, rows: Sequence[Row], threshold: float, *, heading: str | None = None
) -> str:
    """The result of one image.

    Args:
        result: The result.
        target: The image as the model sees it.
        rows: Its samples.
        threshold: Least similarity of a copy.
        heading: The heading; None takes the verdict.
    """
    shown = [field for field in present("details", [result]) if field.name not in ("name", "verdict", "finding")]
    facts = {field.title: field.full(result) for field in shown} if result.check else {}
    return _panel(
        result.verdict.name.lower(),
        heading or result.verdict.capitalize(),
        target,
        words=meaning(result),
        facts=facts,
        rows=rows,
        threshold=threshold,
        verdict=str(result.verdict) if heading else None,
        prompt=result.prompt,
    )


def measured(result: Result, target: Tensor, threshold: float) -> str:
    """The result of an image that was just measured."""
    return outcome(result, picture(target), _drawn(result.check), threshold)


def kept(findings: Findings, result: Result) -> str:
    """The result of an image of an audit, with its pictures if the folder has them."""
    target, rows = pictures(findings, result)
    return outcome(result, target, rows, findings.threshold, heading=result.name or f"Image {result.index}")


def pictures(findings: Findings, result: Result) -> tuple[Image.Image | None, Sequence[Row]]:
    """An image of an audit and its samples, scaled down; nothing if the folder has no pictures of it."""
    shown = Shown.of(findings, result)
    if shown is None:
        return None, []
    rows = [(scale, [(_small(image), value) for image, value, _ in samples]) for scale, samples in shown.rows.items()]
    return _small(shown.image), rows


def cover(findings: Findings, result: Result) -> Image.Image:
    """An image of an audit, scaled down; a grey one if the folder has no picture of it."""
    _, height, width = findings.image_shape
    shown = Shown.of(findings, result)
    return _small(shown.image) if shown else Image.new("L", (width, height), 128)


def picture(image: Tensor) -> Image.Image:
    """The picture of a uint8 tensor ``(C, H, W)``, scaled down if it is large."""
    pixels = image.permute(1, 2, 0).numpy()
    return _small(Image.fromarray(pixels.squeeze(2) if image.shape[0] == 1 else pixels))


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


def _panel(kind: str, heading: str, target: Image.Image | None, **content: Any) -> str:
    template = _environment.get_template("panel.html")
    return template.render({"kind": kind, "heading": heading, "target": target, "uri": _uri, **_EMPTY, **content})


_EMPTY: Mapping[str, Any] = {
    "words": "",
    "verdict": None,
    "prompt": None,
    "progress": None,
    "facts": {},
    "rows": (),
    "threshold": 0.0,
}


def _uri(image: Image.Image) -> str:
    """A data URI of a picture; small pictures are lossless."""
    file = BytesIO()
    image.save(file, "WEBP", quality=85, lossless=max(image.size) <= 64)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
