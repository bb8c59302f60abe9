"""Audits as a task of Inspect: ``inspect eval invmm_inspect/memorization``."""

import math
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import Any, overload

from anyio import to_thread
from inspect_ai import Task, task
from inspect_ai.dataset import Dataset, MemoryDataset, Sample
from inspect_ai.model import ChatMessageAssistant, Content, ContentImage, ContentText
from inspect_ai.scorer import Score, Scorer, Target, mean, scorer
from inspect_ai.solver import Generate, Solver, TaskState, solver

from invmm_eval.plugin import Request, Result, Results, Status, Verdict, run


@task
def memorization(
    diffusion_model: str = "reference",
    images: str | list[str] = "reference",
    captions: str | None = None,
    out: str | None = None,
    **options: Any,
) -> Task:
    """Measure how much a diffusion model memorized each of a set of images; one sample for each image.

    Args:
        diffusion_model: Folder written by ``save_pretrained``, Hub id, or ``reference``.
        images: Folder, file, ``dataset:NAME[:[config/]split[:column]]``, ``reference`` or ``reference:held-out``, or a
            list of these.
        captions: Source of each image's caption: a column of the dataset, or a file suffix such as ``.txt``.
        out: Output folder of the audit. An existing audit in it is resumed.
        **options: The other options of :func:`invmm_eval.audit`, such as ``recipe``, ``settings`` or ``workers``.

    Raises:
        InvMMError: An option or an image is unknown.
    """
    request = Request.of(diffusion_model, images, captions, **options)
    audit = Audit(request, out)
    samples = [Sample(source.name, id=number) for number, source in enumerate(audit.sources, 1)]
    name = images if isinstance(images, str) else ", ".join(images)
    return Task(Images(samples, name, audit), solver=search(audit), scorer=memorized(known=request.estimates_share))


class Audit:
    """An audit of those images of a request that were chosen, which goes on while samples wait for their results.

    Args:
        request: What is measured, and how.
        out: Output folder.
    """

    def __init__(self, request: Request, out: str | Path | None) -> None:
        self.sources = request.sources
        self._request = request
        self._out = out
        self._lock = Lock()
        self.choose(range(len(self.sources)))

    def choose(self, indices: Sequence[int]) -> None:
        """Measure only these images, by their positions in the request."""
        self._chosen = indices
        self._found: dict[int, Result] = {}
        self._error: Exception | None = None
        request = self._request
        if len(indices) < len(self.sources):
            request = replace(request, images=[self.sources[index] for index in indices], captions=None)
        self._results: Iterator[Result] = run(request, out=self._out)

    def result(self, index: int) -> Result:
        """The result of an image by its position in the request, once it is there.

        Raises:
            InvMMError: A requested part, option, device or image is unknown or incompatible.
        """
        with self._lock:
            while index not in self._found:
                if self._error:
                    raise self._error
                try:
                    self._go_on()
                except Exception as error:
                    self._error = error
                    raise
            return self._found[index]

    def _go_on(self) -> None:
        found = next(self._results)
        self._found[self._chosen[found.index]] = found
        if len(self._found) == len(self._chosen):
            next(self._results, None)  # closes the folder


class Images(MemoryDataset):
    """The images of an audit; those that a limit or sample ids leave are the ones that it measures.

    Args:
        samples: One for each image, whose id is its position, from 1.
        name: What the images are called.
        audit: The audit.
    """

    def __init__(self, samples: list[Sample], name: str | None, audit: Audit) -> None:
        super().__init__(samples, name)
        self._audit = audit
        audit.choose(sorted(int(sample.id or 0) - 1 for sample in samples))

    @overload
    def __getitem__(self, index: int) -> Sample: ...

    @overload
    def __getitem__(self, index: slice) -> Dataset: ...

    def __getitem__(self, index: int | slice) -> Sample | Dataset:
        return self.samples[index] if isinstance(index, int) else Images(self.samples[index], self.name, self._audit)

    def filter(self, predicate: Callable[[Sample], bool], name: str | None = None) -> MemoryDataset:
        """Those of the images that a predicate takes."""
        return Images(list(filter(predicate, self.samples)), name or self.name, self._audit)


@solver
def search(audit: Audit) -> Solver:
    """Search the noise for the image of a sample, and show the image with the samples found."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:  # noqa: ARG001
        result = await to_thread.run_sync(audit.result, int(state.sample_id) - 1)
        shown: list[Content] = [ContentText(text=result.words)]
        if result.picture:
            file = BytesIO()
            result.picture.save(file, "PNG")
            shown.append(ContentImage(image=f"data:image/png;base64,{b64encode(file.getvalue()).decode()}"))
        state.messages.append(ChatMessageAssistant(content=shown))
        [state.metadata["result"]] = Results([result]).table().to_pylist()
        return state

    return solve


@scorer(metrics={name: [mean()] for name in ("memorized", "replicated", "failed")})
def memorized(*, known: bool) -> Scorer:
    """Whether an image is memorized, was replicated, or failed; the share of plain samples that are copies; and InvMM.

    The verdict is the answer. Means are over all images, those that failed included.

    Args:
        known: Whether the recipe tells if an image is memorized; if not, that is NaN, which Inspect leaves out.
    """

    async def score(state: TaskState, target: Target) -> Score:  # noqa: ARG001
        result = state.metadata["result"]
        return Score(
            value={
                "memorized": result["verdict"] == Verdict.MEMORIZED if known else math.nan,
                "replicated": result["status"] == Status.REPLICATED,
                "failed": result["status"] == Status.FAILED,
                "plain_share": result["plain_share"],
                "nats": result["nats"],
            },
            answer=result["verdict"],
            explanation=result["finding"],
            metadata=result,
        )

    return score
