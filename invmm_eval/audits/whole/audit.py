"""The audit of a whole set: screen all images, search the suspicious ones, and a random sample of the others."""

from collections.abc import Iterator, Sequence
from functools import partial
from hashlib import sha256
from itertools import takewhile
from pathlib import Path
from typing import Any

from invmm_eval.audits.folder.ranking import distinct, ranked, require_scored
from invmm_eval.audits.folder.requested import Requested
from invmm_eval.audits.folder.scores import Score
from invmm_eval.audits.folder.writing import Store
from invmm_eval.audits.images import Source
from invmm_eval.audits.options import SET_OPTIONS, Extent, with_options
from invmm_eval.audits.plan import OnStep, load, make_plan
from invmm_eval.audits.progress import Bar
from invmm_eval.audits.record import kept
from invmm_eval.audits.request import Request
from invmm_eval.audits.run import processes, sendable, team
from invmm_eval.audits.whole.agenda import Agenda, Outcome
from invmm_eval.audits.whole.found import Design, WholeSet, memorized
from invmm_eval.audits.whole.screening import make_detector, scored
from invmm_eval.audits.workers.team import Team
from invmm_eval.search.result import Result


@with_options(SET_OPTIONS)
def audit_set(
    model: object,
    images: Any,
    *,
    out: str | Path,
    captions: str | Sequence[str | None] | None = None,
    on_step: OnStep | None = None,
    progress: bool = True,
    **options: Any,
) -> WholeSet | None:
    """Find the images of a set that a model memorized, and bound the number of those that were not searched.

    All images are ranked by a detector. The most suspicious are searched in order, until ``clean`` in a row are not
    memorized or the budget is spent. Then a random control sample of the others is searched, which bounds what the
    detector missed.

    Args:
        model: Folder written by ``save_pretrained``, Hub id, loaded diffusers pipeline, or ``reference``.
        images: The images, as :func:`invmm_eval.audit` takes them.
        out: Output folder. An existing audit in it is resumed.
        captions: The texts, one per image, or where they are, as :func:`invmm_eval.find_images` takes it.
        on_step: Called after each step with the searches in progress, and after samples of an estimator with the
            one that they are for; not called with workers.
        progress: Whether to show progress bars where there is a terminal or a notebook.
        **options: {options}

    Returns:
        What was found; None in ranks of torchrun but the first, and for a shard, of which all images are ranked and
        none is searched: which are depends on the scores of all. The folder of all shards, as
        :func:`invmm_eval.merge` makes it, is audited next.

    Raises:
        InvMMError: A requested part, option, device or image is unknown or incompatible, or the folder holds an audit
            of another model or with other settings.
    """
    request = Request.of(model, images, captions, names=SET_OPTIONS, **options)
    return audited(request, out, on_step=on_step, progress=progress)


def audited(
    request: Request, out: str | Path, *, on_step: OnStep | None = None, progress: bool = True
) -> WholeSet | None:
    """The same for a request, with a progress bar for its screen and one for its searches."""
    alone = request.resources.workers is None
    with Bar(request.expected, shown=progress) as screening, Bar(0, shown=progress, also=on_step) as searching:
        backbone = load(request.model, request.resources.device) if alone else None
        scores = ranked(screening.over(scored(request, out=out, backbone=backbone)))
        if request.output.shard:
            return None
        require_scored(scores)
        make = partial(make_plan, request.model, sendable(request), backbone=backbone)
        with team(request, make, on_step=searching.on_step) as workers:
            if not workers:
                return None
            search = _Search(request, Path(out), scores, workers, searching)
            for _ in searching.over(search.run(request.sources)):
                pass
            return search.found()


class _Search:
    """The searches of one run."""

    def __init__(self, request: Request, out: Path, scores: Sequence[Score], workers: Team, bar: Bar) -> None:
        self._request = request
        self._out = out
        self._workers = workers
        self._bar = bar
        self._images = len(scores)
        self._pictures = {score.index: score for score in distinct(scores)}  # the most suspicious first
        self._unreadable = sum(score.score is None for score in scores)
        self._screen_rows = len(self._pictures) * make_detector(request.screen).rows
        self._extent = request.extent or Extent()
        budget, unit = self._extent.limit()
        self._in_seconds = unit == "seconds"
        seconds = sum(score.seconds for score in self._pictures.values())
        self._make_agenda = partial(
            Agenda,
            list(self._pictures),
            sorted(self._pictures, key=lambda index: _digest(request.choices.seed, self._pictures[index])),
            control=self._extent.control,
            clean=self._extent.clean,
            budget=budget * processes(request.resources) if self._in_seconds else budget,
            spent=seconds if self._in_seconds else self._screen_rows,
        )
        self._results: dict[int, Result] = {}

    def run(self, sources: Sequence[Source]) -> Iterator[Result]:
        """Search until all is known, yielding each result as it is ready."""
        first = self._workers.first
        self._requested = Requested.now([])
        with Store(self._out, first.config, request=self._request.record(), keep=self._request.output.keep) as store:
            earlier = Design.load(self._out)
            known = {
                index: result
                for index, score in self._pictures.items()
                if (result := store.recall(index, score.name, score.picture))
            }
            suspects = known.keys() & (earlier.suspects if earlier else ())
            self._agenda = self._make_agenda(known=len(list(takewhile(suspects.__contains__, self._pictures))))
            for result in known.values():
                self._record(result)
            certain = self._noted(store)
            yield from (self._results[index] for index in certain if index in self._results)
            while not self._agenda.finished:
                # Not a generator, which would end where the agenda is exhausted for the moment.
                images = map(lambda index: (index, sources[index]), self._agenda)  # noqa: C417
                for result in kept(self._workers.measure, images, first.image_shape, store, Result):
                    self._record(result)
                    certain = self._noted(store, certain)
                    yield result
            self._noted(store)

    def found(self) -> WholeSet:
        """What was found, once all is known."""
        design = self._design()
        return WholeSet(design, {index: self._results[index] for index in (*design.suspects, *design.control)})

    def _noted(self, store: Store, before: Sequence[int] = ()) -> Sequence[int]:
        """The images that are certain to be searched, once the folder and the bar say so, and who is a suspect."""
        certain = self._agenda.certain
        if len(certain) > len(before):
            self._requested.only({index: self._pictures[index].name for index in certain}).save(store.folder)
            self._bar.resize(len(certain))
        self._design().save(store.folder)
        return certain

    def _record(self, result: Result) -> None:
        self._results[result.index] = result
        seconds = result.seconds_steps + result.seconds_checks
        cost = seconds if self._in_seconds else float(result.rows or 0)
        self._agenda.record(result.index, Outcome(memorized(result), cost))

    def _design(self) -> Design:
        return Design(
            images=self._images,
            pictures=len(self._pictures),
            unreadable=self._unreadable,
            suspects=tuple(self._agenda.suspects),
            control=tuple(self._agenda.control),
            end=str(self._agenda.end) if self._agenda.finished else "",
            clean=self._extent.clean,
            screen_rows=self._screen_rows,
        )


def _digest(seed: int, score: Score) -> str:
    """A random number of a picture, which depends on the seed and on the picture alone."""
    return sha256(f"{seed} control {score.picture}".encode()).hexdigest()
