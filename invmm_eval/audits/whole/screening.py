"""Score the images of a set by a detector, in this process or in many."""

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from invmm_eval.audits.folder.ranking import ranked
from invmm_eval.audits.folder.requested import Requested
from invmm_eval.audits.folder.scores import Score, Scores
from invmm_eval.audits.options import SCREEN_OPTIONS, ModelOptions, Screen, with_options
from invmm_eval.audits.plan import load, made, model_config, named, versions
from invmm_eval.audits.record import kept
from invmm_eval.audits.request import Request
from invmm_eval.audits.run import team
from invmm_eval.errors import InvMMError
from invmm_eval.models.backbone import Backbone
from invmm_eval.plugins.host import host
from invmm_eval.search.detectors import Detector
from invmm_eval.search.memory import MicroBatch
from invmm_eval.search.target import Target

Entry = tuple[int, Target]


@dataclass(frozen=True)
class Screening:
    """Everything that determines the scores.

    Attributes:
        backbone: The model.
        detector: Scores images.
        seed: Determines its random numbers.
        config: The same in words and numbers, as JSON can hold it.
    """

    backbone: Backbone
    detector: Detector
    seed: int
    config: Mapping[str, Any]

    def measure(
        self,
        targets: Iterable[Target],
        *,
        batch_size: int = 8,
        micro_batch: int | None = None,
        on_step: object = None,  # noqa: ARG002
    ) -> Iterator[Score]:
        """Score images, yielding each score as it is ready, with the number of its image as index.

        Args:
            targets: The images.
            batch_size: Number of images scored together, where ``micro_batch`` is given.
            micro_batch: Maximum number of rows of a network call. None scores each image by itself, so that its score
                is the same bit for bit in any company. Where memory runs out it is halved.
            on_step: Not called: a score has no steps.
        """
        rows = MicroBatch(micro_batch or self.detector.rows)
        waiting = enumerate(targets)
        while batch := list(islice(waiting, batch_size if micro_batch else 1)):
            yield from self._scored(batch, rows)

    def _scored(self, batch: Sequence[Entry], rows: MicroBatch) -> Iterator[Score]:
        """The scores of images; where that raises, each is tried alone, so that only those at fault fail."""
        started = time.perf_counter()
        try:
            values = self._values([target for _, target in batch], rows)
        except Exception as error:
            if len(batch) > 1:
                for entry in batch:
                    yield from self._scored([entry], rows)
                return
            [(index, target)] = batch
            kind = "" if isinstance(error, InvMMError) else f"{type(error).__name__}: "
            reason = " ".join(f"{kind}{error}".split())
            yield Score.failure(index, target.name, target.digest, target.caption, reason)
            return
        seconds = round((time.perf_counter() - started) / len(batch), 6)
        for (index, target), value in zip(batch, values, strict=True):
            yield Score(index, target.name, target.digest, target.caption, value, seconds)

    def _values(self, targets: Sequence[Target], rows: MicroBatch) -> list[float]:
        with torch.no_grad():
            pixels = torch.stack([target.image for target in targets]).to(self.backbone.device).float() / 255
            x_0 = self.backbone.encode(pixels)
        while True:
            with rows as size:
                scores = self.detector(self.backbone, x_0, targets, seed=self.seed, micro_batch=size)
                break
        values: list[float] = scores.flatten().tolist()
        if scores.shape != (len(targets),) or not all(map(math.isfinite, values)):
            raise InvMMError(
                f"The detector {self.detector.name} returned {values[:3]} of shape {tuple(scores.shape)}; it must "
                f"return one finite score per image. Try float32, or another detector."
            )
        return values


def make_detector(screen: Screen) -> Detector:
    """Make a detector.

    Raises:
        InvMMError: It, or one of its options, is unknown.
    """
    make = host().detector(screen.detector)
    detector: Detector = named(made(make, screen.detector, screen.detector_options), "detector", screen.detector)
    return detector


def make_screening(
    model: ModelOptions, screen: Screen, seed: int, *, device: str | None, backbone: Backbone | None = None
) -> Screening:
    """Load the model and make the detector.

    Args:
        model: The model, and how it is loaded.
        screen: The detector and its options.
        seed: Seed of its random numbers.
        device: None takes CUDA if available, else the CPU.
        backbone: The loaded model; None loads it.

    Raises:
        InvMMError: The model, the detector, an option or the device is unknown or incompatible.
    """
    detector = make_detector(screen)  # before the model is loaded
    backbone = backbone or load(model, device)
    config = {
        **model_config(model, backbone),
        "detector": {"name": detector.name, **detector.settings},
        "seed": seed,
        "versions": versions(backbone, detector=detector.name),
    }
    return Screening(backbone, detector, seed, config)


@with_options(SCREEN_OPTIONS)
def screen(
    model: object,
    images: Any,
    *,
    captions: str | Sequence[str | None] | None = None,
    out: str | Path | None = None,
    **options: Any,
) -> list[Score]:
    """Rank images by how likely a search is to find them memorized, without searching.

    A score is a number of one detector for one model: it only orders the images. What the model memorized is found by
    searching them (:func:`invmm_eval.audit_set` does both).

    Args:
        model: Folder written by ``save_pretrained``, Hub id, loaded diffusers pipeline, or ``reference``.
        images: The images, as :func:`invmm_eval.audit` takes them.
        captions: The texts, one per image, or where they are, as :func:`invmm_eval.find_images` takes it.
        out: Output folder. Scores in it are not computed again.
        **options: {options}

    Returns:
        One score per image, the most suspicious first, those that failed last.

    Raises:
        InvMMError: A requested model, detector, option, device or image is unknown or incompatible, or the folder
            holds scores of another model, detector or seed.
    """
    request = Request.of(model, images, captions, names=SCREEN_OPTIONS, **options)
    return ranked(scored(request, out=out))


def scored(request: Request, *, out: str | Path | None = None, backbone: Backbone | None = None) -> Iterator[Score]:
    """Score the images of a request, yielding each as it is ready, with the position of its image as index.

    Args:
        request: What is scored, and how.
        out: Output folder.
        backbone: The loaded model, for a run without workers; None loads it.

    Raises:
        InvMMError: As :func:`screen`.
    """
    make = partial(make_screening, request.model, request.screen, request.choices.seed, backbone=backbone)
    with team(request, make, Score) as workers:
        if workers:
            first, sources = workers.first, request.sources
            requested = Requested.now([source.name for source in sources], request.output.part())
            with nullcontext() if out is None else Scores(out, first.config) as keeper:
                yield from kept(workers.measure, enumerate(sources), first.image_shape, keeper, Score, requested)
