"""Has this diffusion model memorized this image? InvMM, as a pluggable evaluation metric.

The measure: Ma et al., "An Inversion-based Measure of Memorization for Diffusion Models", ICCV 2025, arXiv 2405.05846.
Names are imported when they are first used, so that importing the package costs nothing.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from invmm_eval.auditing import audit as audit
    from invmm_eval.autoencoder import Autoencoder as Autoencoder
    from invmm_eval.backbone import Backbone as Backbone
    from invmm_eval.backbone import discrete as discrete
    from invmm_eval.backbone import frozen as frozen
    from invmm_eval.backbone import load_pipeline as load_pipeline
    from invmm_eval.backbone import rectified_flow as rectified_flow
    from invmm_eval.calibration import Calibration as Calibration
    from invmm_eval.calibration import calibrate as calibrate
    from invmm_eval.condition import Condition as Condition
    from invmm_eval.condition import Context as Context
    from invmm_eval.condition import FixedPrompt as FixedPrompt
    from invmm_eval.condition import SoftPrompt as SoftPrompt
    from invmm_eval.condition import Unconditional as Unconditional
    from invmm_eval.condition import repeat as repeat
    from invmm_eval.errors import InvMMError as InvMMError
    from invmm_eval.hookspecs import BackboneEntry as BackboneEntry
    from invmm_eval.hookspecs import SimilarityMaker as SimilarityMaker
    from invmm_eval.hookspecs import hookimpl as hookimpl
    from invmm_eval.hookspecs import lazy as lazy
    from invmm_eval.images import Target as Target
    from invmm_eval.inversion import invert as invert
    from invmm_eval.inversion import replicate as replicate
    from invmm_eval.metric import metric_path as metric_path
    from invmm_eval.metric.invmm import InvMM as InvMM
    from invmm_eval.noise import Noise as Noise
    from invmm_eval.noise import NoiseFamily as NoiseFamily
    from invmm_eval.plugins import host as host
    from invmm_eval.recipe import STABLE_DIFFUSION as STABLE_DIFFUSION
    from invmm_eval.recipe import STABLE_DIFFUSION_3 as STABLE_DIFFUSION_3
    from invmm_eval.recipe import Recipe as Recipe
    from invmm_eval.result import Result as Result
    from invmm_eval.result import Status as Status
    from invmm_eval.schedule import RectifiedFlow as RectifiedFlow
    from invmm_eval.schedule import Schedule as Schedule
    from invmm_eval.schedule import VariancePreserving as VariancePreserving
    from invmm_eval.schedule import broadcast as broadcast
    from invmm_eval.similarity import Similarity as Similarity
    from invmm_eval.text import SoftTextEncoder as SoftTextEncoder
    from invmm_eval.text import check_prompt_mode as check_prompt_mode
    from invmm_eval.text import fixed_text as fixed_text

_HOMES = {
    "auditing": ("audit",),
    "autoencoder": ("Autoencoder",),
    "backbone": ("Backbone", "discrete", "frozen", "load_pipeline", "rectified_flow"),
    "calibration": ("Calibration", "calibrate"),
    "condition": ("Condition", "Context", "FixedPrompt", "SoftPrompt", "Unconditional", "repeat"),
    "errors": ("InvMMError",),
    "hookspecs": ("BackboneEntry", "SimilarityMaker", "hookimpl", "lazy"),
    "images": ("Target",),
    "inversion": ("invert", "replicate"),
    "metric": ("metric_path",),
    "metric.invmm": ("InvMM",),
    "noise": ("Noise", "NoiseFamily"),
    "plugins": ("host",),
    "recipe": ("STABLE_DIFFUSION", "STABLE_DIFFUSION_3", "Recipe"),
    "result": ("Result", "Status"),
    "schedule": ("RectifiedFlow", "Schedule", "VariancePreserving", "broadcast"),
    "similarity": ("Similarity",),
    "text": ("SoftTextEncoder", "check_prompt_mode", "fixed_text"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)
__version__ = version("invmm-eval")


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
