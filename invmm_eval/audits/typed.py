"""The options of an audit as type checkers see them, who cannot read :data:`~invmm_eval.audits.options.OPTIONS`.

A function takes ``**options: Unpack[AuditOptions]``. A test compares the names and types with those of the options.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    from invmm_eval.audits.calibration import Calibration
    from invmm_eval.recipe import Recipe
    from invmm_eval.similarity import Similarity


class LoadingOptions(TypedDict, total=False):
    """Those of :func:`invmm_eval.load_backbone`."""

    backbone: str | None
    revision: str | None
    lora: str | None
    embedding: str | None
    dtype: str
    offload: Literal["model", "group"] | None
    backbone_options: Mapping[str, Any] | None
    device: str | None


class CalibrationOptions(LoadingOptions, total=False):
    """Those of :func:`invmm_eval.calibrate`."""

    similarity: "str | Similarity | None"
    similarity_options: Mapping[str, Any] | None
    noise: str
    noise_options: Mapping[str, Any] | None
    recipe: "str | Recipe"
    settings: Mapping[str, Any] | None
    seed: int
    workers: int | Literal["ranks"] | None
    batch_size: int
    micro_batch: int | None


class AuditOptions(CalibrationOptions, total=False):
    """Those of :func:`invmm_eval.audit`."""

    calibration: "Calibration | str | Path | None"
    shard: str | None
    keep: Literal["all", "replicated", "nothing"]


class ScreenOptions(LoadingOptions, total=False):
    """Those of :func:`invmm_eval.screen`."""

    detector: str
    detector_options: Mapping[str, Any] | None
    seed: int
    workers: int | Literal["ranks"] | None
    batch_size: int
    micro_batch: int | None
    shard: str | None


class SetOptions(AuditOptions, total=False):
    """Those of :func:`invmm_eval.audit_set`."""

    detector: str
    detector_options: Mapping[str, Any] | None
    budget: str | int | None
    control: int
    clean: int
