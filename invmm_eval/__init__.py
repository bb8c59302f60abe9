"""Has this diffusion model memorized this image? InvMM, as a pluggable evaluation metric.

The measure: Ma et al., "An Inversion-based Measure of Memorization for Diffusion Models", ICCV 2025, arXiv 2405.05846.
Names are imported when they are first used, so that importing the package costs nothing. What plugin authors need is in
:mod:`invmm_eval.plugin`.
"""

import warnings
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from invmm_eval.exports import exported, imported

if TYPE_CHECKING:
    from invmm_eval.audits.calibration import Calibration as Calibration
    from invmm_eval.audits.held_out import calibrate as calibrate
    from invmm_eval.audits.images import Source as Source
    from invmm_eval.audits.images import find_images as find_images
    from invmm_eval.audits.merge import merge as merge
    from invmm_eval.audits.plan import load_backbone as load_backbone
    from invmm_eval.audits.results import read_audit as read_audit
    from invmm_eval.audits.run import audit as audit
    from invmm_eval.audits.whole.audit import audit_set as audit_set
    from invmm_eval.audits.whole.screening import screen as screen
    from invmm_eval.errors import InvMMError as InvMMError
    from invmm_eval.metric import metric_path as metric_path
    from invmm_eval.metric.invmm import InvMM as InvMM
    from invmm_eval.plugins.host import host as host
    from invmm_eval.recipe import Recipe as Recipe
    from invmm_eval.reports import report as report
    from invmm_eval.reports.comparison import compare as compare
    from invmm_eval.search.engine import invert as invert
    from invmm_eval.search.replicate import replicate as replicate
    from invmm_eval.search.result import Result as Result
    from invmm_eval.search.result import Status as Status
    from invmm_eval.search.target import Target as Target

_HOMES = exported(__file__)

__all__ = sorted(_HOMES)
__version__ = version("invmm-eval")


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        plugin = import_module(f"{__name__}.plugin")
        if name in plugin.__all__:
            message = f"Import {name} from invmm_eval.plugin, not from invmm_eval."
            warnings.warn(message, DeprecationWarning, stacklevel=2)
            return getattr(plugin, name)
    return imported(name, _HOMES, __name__)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
