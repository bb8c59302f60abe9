"""A Space of the Hub: the page for who looks, and the metric for who calls ``evaluate.load("org/invmm")``."""

import json
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from huggingface_hub import SpaceCardData

from invmm_eval.audits.folder.files import picture_of
from invmm_eval.errors import InvMMError
from invmm_eval.metric import MODULE
from invmm_eval.reports.card import TEMPLATES
from invmm_eval.reports.findings import Findings

NAME = "invmm"
"""What a Space must be called: evaluate looks in it for a module of its own name."""
_APP = '''\
"""The page of InvMM."""

from pathlib import Path

from invmm_eval.page.app import serve

audit = Path(__file__).with_name("audit")
serve(audit if audit.exists() else None)
'''


def write_space(folder: Path, findings: Findings | None = None, *, pictures: bool = False) -> dict[str, Path]:
    """Write the Space.

    Args:
        folder: Made where it does not exist; a Space that was written there is replaced.
        findings: An audit to show, as :meth:`Findings.public` gives it.
        pictures: Whether its images and samples are in the Space.

    Returns:
        The files by their path in the Space.

    Raises:
        InvMMError: The folder holds something else, a file cannot be read or written, or gradio is missing.
    """
    try:
        _clear(folder)
        for name, text in _texts(findings).items():
            (folder / name).write_text(text, encoding="utf-8")
        if findings:
            _write_audit(folder / "audit", findings, pictures=pictures)
    except OSError as error:
        raise InvMMError(f"The Space cannot be written to {folder}: {error.strerror or error}.") from error
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def check_name(name: str) -> None:
    """Refuse names under which evaluate would not find the metric.

    Raises:
        InvMMError: The name is not ``org/invmm``.
    """
    if name.split("/")[1:] != [NAME]:
        raise InvMMError(f"A Space must be called {NAME}, for evaluate.load to find the metric in it: org/{NAME}.")


def _clear(folder: Path) -> None:
    """Make the folder, without what an earlier Space left in it."""
    app = folder / "app.py"
    if folder.exists() and any(folder.iterdir()) and not (app.exists() and app.read_text("utf-8") == _APP):
        raise InvMMError(f"{folder} holds something else than a Space of InvMM; name another folder with --out.")
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "audit").exists():
        shutil.rmtree(folder / "audit")


def _texts(findings: Findings | None) -> dict[str, str]:
    try:
        gradio = version("gradio")
    except PackageNotFoundError as error:
        raise InvMMError('A Space is written for the gradio that is here: pip install "invmm-eval[page]".') from error
    metadata = SpaceCardData(
        title="InvMM",
        sdk="gradio",
        sdk_version=gradio,
        python_version=f"{sys.version_info.major}.{sys.version_info.minor}",
        app_file="app.py",
        license="apache-2.0",
        tags=["evaluate", "metric", "memorization", "invmm"],
        colorFrom="gray",
        colorTo="red",
        short_description="Has this diffusion model memorized this image?",
    )
    return {
        "app.py": _APP,
        f"{NAME}.py": MODULE,
        "requirements.txt": f"invmm-eval[page]=={version('invmm-eval')}\n",
        "README.md": TEMPLATES.get_template("space.md").render(metadata=metadata, findings=findings),
    }


def _write_audit(folder: Path, findings: Findings, *, pictures: bool) -> None:
    """As much of an audit's folder as the page reads; captions and tensors stay at home."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(dict(findings.config), indent=2) + "\n", encoding="utf-8")
    finished = findings.written and findings.written.isoformat(timespec="milliseconds")
    rows = [{**r.record(), "caption": None, "sha256": None, "finished": finished} for r in findings.results]
    (folder / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for row, result in zip(rows, findings.results, strict=True) if pictures else ():
        if result.check:
            copy = picture_of(folder, row)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(findings.picture(result), copy)
