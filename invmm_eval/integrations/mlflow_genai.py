"""InvMM in mlflow's GenAI evaluation: a trace for each image of an audit, and what was found as its assessments.

mlflow.genai.evaluate(data=rows("audit"), scorers=[invmm])
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow.entities import Feedback
from mlflow.genai.scorers import scorer
from mlflow.tracing.attachments import Attachment

from invmm_eval.audits.results import share_is_known
from invmm_eval.reports.card import sheet
from invmm_eval.reports.findings import find
from invmm_eval.search.status import Status, Verdict


def rows(folder: str | Path, *, names: bool = False, pictures: bool = False) -> list[dict[str, Any]]:
    """The images of an audit as the data of ``mlflow.genai.evaluate``.

    Args:
        folder: Folder of the audit.
        names: Whether names, prompts and errors of images are logged, which may be private.
        pictures: Whether each image is logged with its samples, which may be private.

    Returns:
        One row per image, the most memorized first: its name as ``inputs``, all its values as ``outputs``.

    Raises:
        InvMMError: The folder holds no audit, or a file of it cannot be read.
    """
    findings = find(folder).public(names=names)
    known = share_is_known(findings.results.examples)
    data = []
    for results, part in findings.parts():
        for result, values in zip(results, part.to_pylist(), strict=True):
            outputs = {**values, "memorized": result.verdict is Verdict.MEMORIZED if known else None}
            if pictures and findings.picture(result).is_file():
                outputs["pictures"] = Attachment(content_type="image/png", content_bytes=sheet(findings, result))
            data.append({"inputs": {"image": result.name}, "outputs": outputs})
    return data


@scorer(name="invmm")  # type: ignore[untyped-decorator]
def invmm(outputs: Mapping[str, Any]) -> list[Feedback]:
    """Whether an image is memorized, was replicated, or failed; the share of plain samples that are copies; and InvMM.

    Args:
        outputs: Those of :func:`rows`.

    Returns:
        ``memorized`` (unless no share of plain samples was estimated), ``replicated`` and ``failed``, whose means are
        over all images, and ``plain_share`` and ``nats`` where they exist.
    """
    found = {
        "memorized": outputs["memorized"],
        "replicated": outputs["status"] == Status.REPLICATED,
        "failed": outputs["status"] == Status.FAILED,
        "plain_share": outputs["plain_share"],
        "nats": outputs["nats"],
    }
    said = outputs["finding"]
    return [Feedback(name=name, value=value, rationale=said) for name, value in found.items() if value is not None]
