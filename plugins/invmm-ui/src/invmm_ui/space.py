"""A Space of the Hub: the web page, and the metric for ``evaluate.load("org/invmm")``."""

import json
import shutil
import sys
from importlib.metadata import distribution, requires, version
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from huggingface_hub import SpaceCardData
from jinja2 import PackageLoader

from invmm_eval.plugin import MODULE, TEMPLATES, Findings, InvMMError, picture_of

NAME = "invmm"
"""The required name of a Space: evaluate looks in it for a module of its own name."""
PACKAGES = "packages.zip"
_APP = f'''\
"""The page of InvMM. The packages that it needs are in {PACKAGES}, because no package index has them."""

import shutil
import sys
import tempfile
from pathlib import Path

folder = Path(__file__).parent
packages = tempfile.mkdtemp()
shutil.unpack_archive(folder / "{PACKAGES}", packages)
sys.path.insert(0, packages)

from invmm_ui.app import serve

audit = folder / "audit"
serve(audit if audit.exists() else None)
'''


def write_space(folder: Path, findings: Findings | None = None, *, pictures: bool = False) -> dict[str, Path]:
    """Write the Space.

    Args:
        folder: Output folder, which is created if missing. An earlier Space in it is replaced.
        findings: An audit to show, from :meth:`Findings.public`.
        pictures: Whether to include its images and samples.

    Returns:
        The files by their path in the Space.

    Raises:
        InvMMError: The folder holds something else, or a file cannot be read or written.
    """
    try:
        _clear(folder)
        for name, text in _texts(findings).items():
            (folder / name).write_text(text, encoding="utf-8")
        (folder / PACKAGES).write_bytes(_packages())
        if findings:
            _write_audit(folder / "audit", findings, pictures=pictures)
    except OSError as error:
        raise InvMMError(f"The Space cannot be written to {folder}: {error.strerror or error}.") from error
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def check_name(name: str) -> None:
    """Check that evaluate finds the metric under this name.

    Raises:
        InvMMError: The name is not ``org/invmm``.
    """
    if name.split("/")[1:] != [NAME]:
        raise InvMMError(f"Name the Space org/{NAME}: evaluate.load finds the metric only in a Space called {NAME}.")


def _clear(folder: Path) -> None:
    """Create the folder, and remove the audit of an earlier Space from it."""
    app = folder / "app.py"
    if folder.exists() and any(folder.iterdir()) and not (app.exists() and app.read_text("utf-8") == _APP):
        raise InvMMError(f"{folder} is not empty and holds no Space of InvMM; choose another folder with --out.")
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "audit").exists():
        shutil.rmtree(folder / "audit")


def _texts(findings: Findings | None) -> dict[str, str]:
    metadata = SpaceCardData(
        title="InvMM",
        sdk="gradio",
        sdk_version=version("gradio"),
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
        "requirements.txt": "".join(f"{line}\n" for line in requires("invmm-eval") or () if "extra ==" not in line),
        "README.md": TEMPLATES.overlay(loader=PackageLoader("invmm_ui", ""))
        .get_template("space.md")
        .render(metadata=metadata, findings=findings),
    }


def _packages() -> bytes:
    """The packages as they are installed here, with the metadata that says their version, as a ZIP file."""
    file = BytesIO()
    with ZipFile(file, "w") as archive:

        def add(name: str, content: bytes) -> None:
            archive.writestr(ZipInfo(name), content, ZIP_DEFLATED)  # without a date: equal packages are equal files

        for package in ("invmm_eval", "invmm_ui"):
            folder = Path(str(files(package)))
            for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"):
                add(path.relative_to(folder.parent).as_posix(), path.read_bytes())
        metadata = distribution("invmm-eval").read_text("METADATA") or ""
        add(f"invmm_eval-{version('invmm-eval')}.dist-info/METADATA", metadata.encode())
    return file.getvalue()


def _write_audit(folder: Path, findings: Findings, *, pictures: bool) -> None:
    """Write the part of an audit's folder that the page reads, without captions and tensors."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(dict(findings.config), indent=2) + "\n", encoding="utf-8")
    finished = findings.written and findings.written.isoformat(timespec="milliseconds")
    without_tensors = {"caption": None, "sha256": "", "finished": finished}
    rows = [{**result.record(), **without_tensors} for result in findings.results]
    if findings.whole:
        findings.whole.design.save(folder)
    (folder / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for row, result in zip(rows, findings.results, strict=True) if pictures else ():
        if findings.picture(result).is_file():
            copy = picture_of(folder, row)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(findings.picture(result), copy)
