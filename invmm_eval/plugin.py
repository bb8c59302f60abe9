"""All that plugin authors need: the hooks' marker, the protocols, and helpers for new backbones.

Names are imported when they are first used, so that registering a plugin imports no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from invmm_eval.errors import InvMMError as InvMMError
    from invmm_eval.models.autoencoder import Autoencoder as Autoencoder
    from invmm_eval.models.backbone import Backbone as Backbone
    from invmm_eval.models.condition import Condition as Condition
    from invmm_eval.models.condition import Context as Context
    from invmm_eval.models.condition import FixedPrompt as FixedPrompt
    from invmm_eval.models.condition import SoftPrompt as SoftPrompt
    from invmm_eval.models.condition import Unconditional as Unconditional
    from invmm_eval.models.condition import repeat as repeat
    from invmm_eval.models.pipelines import discrete as discrete
    from invmm_eval.models.pipelines import frozen as frozen
    from invmm_eval.models.pipelines import load_pipeline as load_pipeline
    from invmm_eval.models.pipelines import rectified_flow as rectified_flow
    from invmm_eval.models.schedule import RectifiedFlow as RectifiedFlow
    from invmm_eval.models.schedule import Schedule as Schedule
    from invmm_eval.models.schedule import VariancePreserving as VariancePreserving
    from invmm_eval.models.schedule import broadcast as broadcast
    from invmm_eval.models.text import SoftTextEncoder as SoftTextEncoder
    from invmm_eval.models.text import check_prompt_mode as check_prompt_mode
    from invmm_eval.models.text import fixed_text as fixed_text
    from invmm_eval.noise import Noise as Noise
    from invmm_eval.noise import NoiseFamily as NoiseFamily
    from invmm_eval.plugins.hooks import BackboneEntry as BackboneEntry
    from invmm_eval.plugins.hooks import CommandEntry as CommandEntry
    from invmm_eval.plugins.hooks import NoiseFamilyMaker as NoiseFamilyMaker
    from invmm_eval.plugins.hooks import SimilarityMaker as SimilarityMaker
    from invmm_eval.plugins.hooks import hookimpl as hookimpl
    from invmm_eval.plugins.hooks import lazy as lazy
    from invmm_eval.recipe import DDPM as DDPM
    from invmm_eval.recipe import LDM as LDM
    from invmm_eval.recipe import STABLE_DIFFUSION as STABLE_DIFFUSION
    from invmm_eval.recipe import STABLE_DIFFUSION_3 as STABLE_DIFFUSION_3
    from invmm_eval.recipe import Recipe as Recipe
    from invmm_eval.similarity import Similarity as Similarity

_HOMES = {
    "errors": ("InvMMError",),
    "models.autoencoder": ("Autoencoder",),
    "models.backbone": ("Backbone",),
    "models.condition": ("Condition", "Context", "FixedPrompt", "SoftPrompt", "Unconditional", "repeat"),
    "models.pipelines": ("discrete", "frozen", "load_pipeline", "rectified_flow"),
    "models.schedule": ("RectifiedFlow", "Schedule", "VariancePreserving", "broadcast"),
    "models.text": ("SoftTextEncoder", "check_prompt_mode", "fixed_text"),
    "noise": ("Noise", "NoiseFamily"),
    "plugins.hooks": ("BackboneEntry", "CommandEntry", "NoiseFamilyMaker", "SimilarityMaker", "hookimpl", "lazy"),
    "recipe": ("DDPM", "LDM", "Recipe", "STABLE_DIFFUSION", "STABLE_DIFFUSION_3"),
    "similarity": ("Similarity",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"invmm_eval.{_HOME_OF[name]}"), name)
