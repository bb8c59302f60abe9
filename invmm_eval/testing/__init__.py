"""Checks for plugin authors: every promise of every kind of part, and small real models to test a backbone on.

Names are imported on first use, so that the fixtures cost nothing if no test uses them.
"""

from typing import TYPE_CHECKING, Any

from invmm_eval.exports import exported, imported

if TYPE_CHECKING:
    from invmm_eval.testing.backbone import check_backbone as check_backbone
    from invmm_eval.testing.command import check_command as check_command
    from invmm_eval.testing.detector import check_detector as check_detector
    from invmm_eval.testing.estimator import check_estimator as check_estimator
    from invmm_eval.testing.noise import check_noise_family as check_noise_family
    from invmm_eval.testing.promises import BrokenPromise as BrokenPromise
    from invmm_eval.testing.similarity import check_similarity as check_similarity

_HOMES = exported(__file__)

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    return imported(name, _HOMES, __name__)
