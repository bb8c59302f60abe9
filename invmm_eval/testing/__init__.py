"""The kit for those who write plugins: checks of every promise, and small real models to try a backbone on.

Names are imported when they are first used, so that the fixtures cost nothing where no test takes them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from invmm_eval.testing.backbone import check_backbone as check_backbone
    from invmm_eval.testing.noise import check_noise_family as check_noise_family
    from invmm_eval.testing.promises import BrokenPromise as BrokenPromise
    from invmm_eval.testing.similarity import check_similarity as check_similarity

_HOME_OF = {
    "BrokenPromise": "promises",
    "check_backbone": "backbone",
    "check_noise_family": "noise",
    "check_similarity": "similarity",
}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
