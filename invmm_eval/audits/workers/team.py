"""What actors of Ray and ranks of torchrun have in common."""

import math
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Protocol

from invmm_eval.audits.folder.format import differing
from invmm_eval.errors import InvMMError
from invmm_eval.models.backbone import Backbone
from invmm_eval.search.target import Target


class Work(Protocol):
    """What workers do with each image: the plan of a search, or a screening."""

    @property
    def backbone(self) -> Backbone:
        """The model."""
        ...

    @property
    def config(self) -> Mapping[str, Any]:
        """Everything that determines what is found."""
        ...

    @property
    def measure(self) -> Callable[..., Iterator[Any]]:
        """Takes images, ``batch_size``, ``micro_batch`` and ``on_step``; yields what it finds, by their numbers."""
        ...


MakePlan = Callable[[str | None], Work]
"""Makes the plan for a device by name; None lets the plan choose. Ray pickles it."""


@dataclass(frozen=True)
class Ready:
    """What a worker reports when it has made its plan.

    Attributes:
        image_shape: ``(C, H, W)`` of the model's images.
        config: Everything that determines results.
        machine: Host name.
    """

    image_shape: tuple[int, int, int]
    config: Mapping[str, Any]
    machine: str


@dataclass(frozen=True)
class Team:
    """Workers that are started.

    Attributes:
        first: The report of the first one that was ready. All others must agree with it.
        measure: Takes images one by one as workers become free, and yields each result as it is ready, with the number
            of its image as index. It may be called again once it has ended, which is when it has no images under way
            and gets no more. Raises InvMMError if workers cannot start or continue, or disagree.
    """

    first: Ready
    measure: Callable[[Iterable[Target]], Iterator[Any]]


def start(make_plan: MakePlan, device: str | None) -> tuple[Work, Ready]:
    """Make a worker's plan.

    Raises:
        InvMMError: A requested part is unknown or incompatible on this machine.
    """
    try:
        plan = make_plan(device)
    except InvMMError as error:
        raise InvMMError(f"A worker on {platform.node()} cannot start: {error}") from error
    return plan, Ready(plan.backbone.image_shape, plan.config, platform.node())


def share(images: int, workers: int, batch_size: int) -> int:
    """Number of images searched together by each worker, so that few images are spread over all workers."""
    return max(1, min(batch_size, math.ceil(images / workers)))


def check_agreement(ready: Ready, first: Ready) -> None:
    """Check that two workers give the same results.

    Raises:
        InvMMError: Their packages, plugins or weights differ.
    """
    expected, found = version("invmm-eval"), ready.config["versions"]["invmm-eval"]
    if expected != found:
        raise InvMMError(f"The worker on {ready.machine} has invmm-eval {found}; install {expected} there.")
    if names := differing(first.config, ready.config):
        raise InvMMError(
            f"The worker on {ready.machine} and the one on {first.machine} differ in {', '.join(names)}; install "
            "the same packages, and put the same model, on all machines."
        )
