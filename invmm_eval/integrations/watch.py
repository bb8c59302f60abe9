"""Watch a training: audit canaries and the most suspicious training images in the model of the moment.

    watch = Watch(canaries, training="train", every=500, out="watch", log=accelerator.log)
    for step, batch in enumerate(batches, 1):
        train_on(batch)
        if watch(step, pipeline):
            break

A check leaves the training as it was: random numbers, gradients, modes, precision and memory.
"""

import logging
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from accelerate.utils.memory import clear_device_cache
from diffusers import DiffusionPipeline
from torch import distributed, nn

from invmm_eval.audits.folder.ranking import distinct, ranked
from invmm_eval.audits.folder.scores import Score
from invmm_eval.audits.images import Source, find_images
from invmm_eval.audits.option import options_of
from invmm_eval.audits.options import OPTIONS, Screen, insert, with_options
from invmm_eval.audits.plan import load
from invmm_eval.audits.request import Request
from invmm_eval.audits.results import Results, count
from invmm_eval.audits.run import run
from invmm_eval.audits.whole.found import memorized
from invmm_eval.audits.whole.screening import make_detector, scored
from invmm_eval.errors import InvMMError
from invmm_eval.models.identity import model_identity
from invmm_eval.search.result import Result
from invmm_eval.search.status import Verdict

_log = logging.getLogger(__name__)

WATCH_OPTIONS = [
    name
    for name in OPTIONS | options_of(Screen)
    # The pipeline and its processes are given.
    if name not in ("revision", "lora", "embedding", "dtype", "offload", "device", "workers")
]
QUANTILES = (0.5, 0.9, 0.99, 1.0)
"""Those of the scores that are logged."""


@dataclass(frozen=True)
class Check:
    """What was found at one step.

    Attributes:
        step: The step of the training.
        folder: The folder of the audit. Its name ends with the first digits of the model's identity.
        canaries: The results of the canaries, in their order.
        suspects: Those of the training images that were searched, the most suspicious first.
        scalars: What is logged.
    """

    step: int
    folder: Path
    canaries: Results
    suspects: Results
    scalars: dict[str, float]

    @property
    def memorized(self) -> Results:
        """The results of the images that are memorized."""
        return Results(filter(memorized, (*self.canaries, *self.suspects)))


class Watch:
    """Checks a model in training every few steps.

    A check scores all training images by a detector, then searches the canaries and the most suspicious training
    images. Its audit is kept in a folder of its own, for the commands ``report``, ``status`` and the others. Where the
    same weights are checked again at the same step, as after a restart, known values are read from it.

    Args:
        canaries: Images that every check searches, as :func:`invmm_eval.audit` takes them. Those with captions are
            given as :func:`invmm_eval.find_images` lists them, like training images.
        every: Number of steps between two checks.
        out: The folder that gets a folder for each check.
        training: The training images, or a part of them.
        suspects: Number of training images that a check searches.
        stop_at: Number of memorized images at which the training is to stop; None never stops it.
        log: Called with scalars by name and the step, as ``accelerator.log`` or the ``log`` of any tracker of
            accelerate; in distributed trainings by rank 0 alone.
        **options: {options}

    Attributes:
        checks: What was found so far; in distributed trainings rank 0 has it.

    Raises:
        InvMMError: There is no image, an option is unknown or out of its range, or the recipe does not tell whether an
            image is memorized.
    """

    @with_options(WATCH_OPTIONS)
    def __init__(
        self,
        canaries: Any = (),
        *,
        every: int,
        out: str | Path,
        training: Any = (),
        suspects: int = 4,
        stop_at: int | None = 1,
        log: Callable[[dict[str, float], int], object] | None = None,
        **options: Any,
    ) -> None:
        for name, value, least in (("every", every, 1), ("suspects", suspects, 0), ("stop_at", stop_at or 1, 1)):
            if type(value) is not int or value < least:
                raise InvMMError(f"{name} is {value!r}; it must be a whole number, at least {least}.")
        self._request = Request.of(None, (), names=WATCH_OPTIONS, **options)
        self._request.require_share()
        make_detector(self._request.screen)
        self._canaries, self._training = (_listed(images) for images in (canaries, training))
        if not self._canaries and not self._training:
            raise InvMMError("There is no image to watch; give canaries, training images or both.")
        self._every, self._suspects, self._stop_at = every, suspects, stop_at
        self._out = Path(out)
        self._log = log
        self._checked: int | None = None
        self.checks: list[Check] = []

    def __call__(self, step: int, pipeline: DiffusionPipeline | str | Path) -> bool:
        """Check the model once at each multiple of ``every``; step 0 is the model before the training.

        In distributed trainings every rank makes the call. Where torchrun started them, as ``accelerate launch`` does,
        they share the work; else rank 0 does it.

        Args:
            step: Number of steps taken so far.
            pipeline: The pipeline of the modules in training, which may be wrapped; or, for a model that is sharded
                over processes, the folder that ``save_pretrained`` wrote.

        Returns:
            Whether the training is to stop, in all ranks.

        Raises:
            InvMMError: The pipeline cannot be audited, an option does not fit it, or the folder cannot be written.
        """
        if step % self._every or step == self._checked:
            return False
        self._checked = step
        _check_whole(pipeline)
        rank, size = _place()
        together = size > 1 and distributed.is_torchelastic_launched()
        with _undisturbed(pipeline):
            check = self._check(step, pipeline, together=together) if together or rank == 0 else None
        if check and rank == 0:
            self.checks.append(check)
            self._tell(check)
        return self._agreed(bool(check and self._stop_at and len(check.memorized) >= self._stop_at))

    @property
    def last_clean(self) -> int | None:
        """The step of the last check before an image was first memorized; None if there was none."""
        clean = None
        for check in self.checks:
            if check.memorized:
                break
            clean = check.step
        return clean

    def _check(self, step: int, pipeline: Any, *, together: bool) -> Check:
        request = replace(
            self._request,
            model=replace(self._request.model, source=pipeline),
            resources=replace(self._request.resources, workers="ranks" if together else None),
        )
        folder = self._out / f"step-{step:06d}-{(model_identity(pipeline) or uuid4().hex)[:8]}"
        backbone = None if together else load(request.model, None)
        scores: list[Score] = []
        if self._training:
            scores = ranked(scored(replace(request, images=self._training), out=folder, backbone=backbone))
        suspects = [self._training[score.index] for score in distinct(scores)[: self._suspects]]
        results: Sequence[Result] = []
        if images := [*self._canaries, *suspects]:
            found = run(replace(request, images=images), out=folder, backbone=backbone)
            results = sorted(found, key=lambda result: result.index)
        canaries = results[: len(self._canaries)]
        known = {result.digest for result in canaries}
        others = [result for result in results[len(canaries) :] if result.digest not in known]
        scalars = _scalars(canaries, others, [score.score for score in scores if score.score is not None])
        return Check(step, folder, Results(canaries), Results(others), scalars)

    def _tell(self, check: Check) -> None:
        for result in (*check.canaries, *check.suspects):
            if result.error:
                _log.warning("At step %d: the search of %s failed: %s", check.step, result.name, result.error)
        for result in check.memorized:
            _log.warning("At step %d: %s.", check.step, result.words)
        if self._log:
            self._log(check.scalars, check.step)

    def _agreed(self, stop: bool) -> bool:
        """What rank 0 says, in all ranks."""
        if _place()[1] == 1:
            return stop
        agreed = torch.tensor(int(stop))
        distributed.broadcast(agreed, 0, group=self._patient)
        return bool(agreed)

    @cached_property
    def _patient(self) -> Any:
        """All ranks, with time for a check: a group's usual timeout ends a training in minutes."""
        return distributed.new_group(backend="gloo", timeout=timedelta(days=7))


Watch.__doc__ = insert(Watch.__doc__ or "", WATCH_OPTIONS)


def _listed(images: Any) -> list[Source]:
    return [] if isinstance(images, list | tuple) and not images else find_images(images)


def _place() -> tuple[int, int]:
    """The rank of this process, and the number of processes of the training."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def _scalars(canaries: Sequence[Result], suspects: Sequence[Result], scores: Sequence[float]) -> dict[str, float]:
    """What is logged, without what nothing was measured for."""
    results = [*canaries, *suspects]
    shares = [result.plain_share.rate for result in results if result.plain_share]
    of_all, of_canaries = count(results), count(canaries)
    found = {"memorized": float(of_all[Verdict.MEMORIZED]), "failed": float(of_all[Verdict.FAILED])}
    if of_canaries[Verdict.FAILED] < len(canaries):
        found["canaries_memorized_fraction"] = of_canaries[Verdict.MEMORIZED] / len(canaries)
    if shares:
        found["largest_share"] = max(shares)
    for share, value in zip(QUANTILES, np.quantile(scores, QUANTILES) if scores else (), strict=False):
        found[f"score_q{100 * share:.0f}"] = float(value)
    return {f"invmm/{name}": value for name, value in found.items()}


def _check_whole(pipeline: Any) -> None:
    """Check that this process has all weights of a pipeline.

    Raises:
        InvMMError: They are sharded.
    """
    parts = pipeline.components.values() if isinstance(pipeline, DiffusionPipeline) else ()
    for part in (part for part in parts if isinstance(part, nn.Module)):
        marks = ("placements", "_fsdp_flattened", "ds_id")  # of DTensor (FSDP 2), FSDP 1 and ZeRO 3 of DeepSpeed
        if any(hasattr(parameter, mark) for parameter in part.parameters() for mark in marks):
            raise InvMMError(
                f"The weights of the {type(part).__name__} are sharded over processes; save the pipeline, and give its "
                "folder to the watch."
            )


@contextmanager
def _undisturbed(pipeline: Any) -> Iterator[None]:
    """Leave random numbers, the mode of gradients, autocast and the device's memory as they are found."""
    device = pipeline.device if isinstance(pipeline, DiffusionPipeline) else torch.device("cpu")
    own, numpys = random.getstate(), np.random.get_state()
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(cuda), torch.enable_grad(), torch.autocast(device.type, enabled=False):
        try:
            yield
        finally:
            random.setstate(own)
            np.random.set_state(numpys)
            clear_device_cache(garbage_collection=True)
