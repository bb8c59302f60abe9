"""Make ``evaluate.load("invmm")`` work by that bare name.

evaluate looks for such a name in the working folder (``invmm/invmm.py``), then on the Hub (the Spaces
``evaluate-metric/invmm``, ``evaluate-comparison/invmm`` and ``evaluate-measurement/invmm``), and at last among the
modules it has cached: there :func:`register` places one, whose only line imports this package's metric.

The Hub comes first, so loading waits for it: about a second if it answers that there is no such Space or if there is no
network, but five minutes where the network swallows requests. ``HF_EVALUATE_OFFLINE=1`` skips the Hub, and
``evaluate.load(invmm_eval.metric_path())`` never asks it.
"""

import shutil
from contextlib import AbstractContextManager, suppress
from hashlib import sha256
from pathlib import Path

from evaluate import config

from invmm_eval.errors import on_disk
from invmm_eval.metric import MODULE


def register() -> Path:
    """Place the module as evaluate's latest version of it; returns its path.

    Raises:
        InvMMError: The cache cannot be written.
    """
    place = _place()
    with _writing():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(MODULE, encoding="utf-8")
    return place


def unregister() -> Path | None:
    """Remove the module of :func:`register`, and nothing else; returns its path, None if there was none.

    Raises:
        InvMMError: The cache cannot be written.
    """
    place = _place()
    if not place.exists():
        return None
    with _writing():
        place.unlink()
    shutil.rmtree(place.parent / "__pycache__", ignore_errors=True)
    for folder in (place.parent, place.parent.parent):
        with suppress(OSError):
            folder.rmdir()
    return place


def _place() -> Path:
    """Path that evaluate expects: 64 characters identify a version of a metric, and the latest is used."""
    metrics = Path(config.HF_MODULES_CACHE, config.MODULE_NAME_FOR_DYNAMIC_MODULES, "metrics")
    return metrics / "evaluate-metric--invmm" / sha256(b"invmm-eval").hexdigest() / "invmm.py"


def _writing() -> AbstractContextManager[None]:
    return on_disk(
        f"The cache of evaluate, {config.HF_MODULES_CACHE}, cannot be written", "; set HF_HOME to a folder that can."
    )
