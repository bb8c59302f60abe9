"""Everything that plugin authors need: the hooks, the protocols of parts, and helpers for new parts and commands.

Plugins import from this module alone. Names are imported on first use, so that registering a plugin imports no torch.
"""

from typing import TYPE_CHECKING, Any

from invmm_eval.exports import exported, imported

if TYPE_CHECKING:
    from invmm_eval import reference as reference
    from invmm_eval.audits.folder.files import picture_of as picture_of
    from invmm_eval.audits.images import Source as Source
    from invmm_eval.audits.options import Choices as Choices
    from invmm_eval.audits.options import ModelOptions as ModelOptions
    from invmm_eval.audits.options import Resources as Resources
    from invmm_eval.audits.pictures import ImageLike as ImageLike
    from invmm_eval.audits.pictures import prepare as prepare
    from invmm_eval.audits.plan import Plan as Plan
    from invmm_eval.audits.plan import load_backbone as load_backbone
    from invmm_eval.audits.plan import make_plan as make_plan
    from invmm_eval.audits.request import Request as Request
    from invmm_eval.audits.results import Results as Results
    from invmm_eval.audits.run import run as run
    from invmm_eval.cli.console import hide_library_bars as hide_library_bars
    from invmm_eval.cli.publish import create_or_update as create_or_update
    from invmm_eval.device import to_device as to_device
    from invmm_eval.errors import InvMMError as InvMMError
    from invmm_eval.metric import MODULE as MODULE
    from invmm_eval.models.backbone import Backbone as Backbone
    from invmm_eval.models.condition import Condition as Condition
    from invmm_eval.models.condition import Context as Context
    from invmm_eval.models.condition import FixedPrompt as FixedPrompt
    from invmm_eval.models.condition import SoftPrompt as SoftPrompt
    from invmm_eval.models.condition import Unconditional as Unconditional
    from invmm_eval.models.condition import repeat as repeat
    from invmm_eval.models.generic.backbone import Diffusers as Diffusers
    from invmm_eval.models.generic.backbone import Family as Family
    from invmm_eval.models.pipelines import discrete as discrete
    from invmm_eval.models.pipelines import frozen as frozen
    from invmm_eval.models.pipelines import image_sides as image_sides
    from invmm_eval.models.pipelines import load_pipeline as load_pipeline
    from invmm_eval.models.schedule import RectifiedFlow as RectifiedFlow
    from invmm_eval.models.schedule import Schedule as Schedule
    from invmm_eval.models.schedule import VariancePreserving as VariancePreserving
    from invmm_eval.models.schedule import broadcast as broadcast
    from invmm_eval.models.text import check_prompt_mode as check_prompt_mode
    from invmm_eval.models.text import fixed_text as fixed_text
    from invmm_eval.noise import Noise as Noise
    from invmm_eval.noise import NoiseFamily as NoiseFamily
    from invmm_eval.plugins.hooks import BackboneEntry as BackboneEntry
    from invmm_eval.plugins.hooks import CommandEntry as CommandEntry
    from invmm_eval.plugins.hooks import DetectorMaker as DetectorMaker
    from invmm_eval.plugins.hooks import EstimatorMaker as EstimatorMaker
    from invmm_eval.plugins.hooks import NoiseFamilyMaker as NoiseFamilyMaker
    from invmm_eval.plugins.hooks import SimilarityMaker as SimilarityMaker
    from invmm_eval.plugins.hooks import hookimpl as hookimpl
    from invmm_eval.plugins.hooks import lazy as lazy
    from invmm_eval.plugins.host import Host as Host
    from invmm_eval.recipe import DDPM as DDPM
    from invmm_eval.recipe import LDM as LDM
    from invmm_eval.recipe import STABLE_DIFFUSION as STABLE_DIFFUSION
    from invmm_eval.recipe import STABLE_DIFFUSION_3 as STABLE_DIFFUSION_3
    from invmm_eval.recipe import Recipe as Recipe
    from invmm_eval.reports.card import TEMPLATES as TEMPLATES
    from invmm_eval.reports.findings import Findings as Findings
    from invmm_eval.reports.findings import find as find
    from invmm_eval.reports.shown import Shown as Shown
    from invmm_eval.reports.wording import limits as limits
    from invmm_eval.reports.wording import meaning as meaning
    from invmm_eval.search.detectors import Detector as Detector
    from invmm_eval.search.estimators import Estimator as Estimator
    from invmm_eval.search.estimators import Found as Found
    from invmm_eval.search.estimators import Samples as Samples
    from invmm_eval.search.fields import present as present
    from invmm_eval.search.ray import Ray as Ray
    from invmm_eval.search.result import Check as Check
    from invmm_eval.search.result import Result as Result
    from invmm_eval.search.sampling import sample as sample
    from invmm_eval.search.search import Search as Search
    from invmm_eval.search.sentence import one_in as one_in
    from invmm_eval.search.status import Status as Status
    from invmm_eval.search.status import Verdict as Verdict
    from invmm_eval.search.target import Target as Target
    from invmm_eval.search.target import generator as generator
    from invmm_eval.similarity import Similarity as Similarity

_HOMES = exported(__file__)

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    return imported(name, _HOMES, __name__)
