"""InvMM as a torchmetrics metric: watch how much a model in training memorizes chosen images.

    canaries = InvMM(pipeline)
    canaries.update(images)
    for _ in range(checkpoints):
        train(pipeline)
        print(canaries.compute()["replicated_fraction"])

The states are the images, and :meth:`InvMM.compute` measures the model as it is at that moment. Where torchmetrics
synchronises, the images are those of all processes, each once; every process measures its share of them, and all
get the values of all.
"""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from itertools import repeat
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat
from torchmetrics.utilities.distributed import gather_all_tensors

from invmm_eval.audits.images import Source, find_images
from invmm_eval.audits.options import OPTIONS, insert, with_options
from invmm_eval.audits.pictures import prepare
from invmm_eval.audits.plan import load
from invmm_eval.audits.request import Request
from invmm_eval.audits.results import summarize
from invmm_eval.audits.run import run
from invmm_eval.errors import InvMMError
from invmm_eval.search.fields import columns
from invmm_eval.search.result import Result
from invmm_eval.search.target import Target

_log = logging.getLogger(__name__)

_RENAMED = {"load_to": "device", "precision": "dtype"}
"""Earlier names of options, still accepted."""


class InvMM(Metric):
    """Has this diffusion model memorized these images?

    ``device`` and ``dtype`` are those of a model that is loaded here; the attributes of these names are torchmetrics'
    own, for the states.

    Args:
        model: A loaded pipeline, which may be in training, or a folder or Hub id, loaded again by each compute.
        **options: {options}
        **kwargs: Those of :class:`torchmetrics.Metric`.

    Raises:
        InvMMError: A requested model, backbone, device, precision or option is unknown or incompatible.
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False

    pixels: list[Tensor] | Tensor
    captions: list[Tensor] | Tensor

    @with_options()
    def __init__(self, model: object, **kwargs: Any) -> None:
        for old, new in _RENAMED.items():
            if old in kwargs:
                kwargs[new] = kwargs.pop(old)
        options = {name: kwargs.pop(name) for name in OPTIONS if name in kwargs}
        super().__init__(compute_with_cache=False, **kwargs)
        self._request = Request.of(model, (), **options)
        if self._request.resources.workers == "ranks":
            raise InvMMError("torchmetrics shares the images among its own processes; leave workers out.")
        self._shape = load(self._request.model, self._request.resources.device).image_shape
        # Values from 0 to 255 in one dimension, as torchmetrics can gather them where a process has none. Captions are
        # lines of JSON.
        for state in ("pixels", "captions"):
            self.add_state(state, default=[], dist_reduce_fx="cat")

    def update(self, images: Any, captions: str | Sequence[str | None] | None = None) -> None:
        """Add images to watch; equal images with equal captions count once.

        Args:
            images: A batch, uint8 or floats in [0, 1], as one tensor ``(n, C, H, W)`` or array ``(n, H, W, C)``; or a
                list of images, a folder or a data set, as :func:`invmm_eval.audit` takes them.
            captions: Their texts, for a model that takes them, or where they are, as :func:`invmm_eval.find_images`
                takes them.

        Raises:
            InvMMError: An image or a caption cannot be read, or the number of captions is not that of the images.
        """
        assert isinstance(self.pixels, list)
        assert isinstance(self.captions, list)
        batch = images if isinstance(images, np.ndarray | Tensor) else [images]
        for source in find_images(*batch, captions=captions):
            line = torch.tensor(list(f"{json.dumps(source.caption)}\n".encode()))
            self.pixels.append(prepare(source.value, self._shape).flatten().to(self.device, self.dtype))
            self.captions.append(line.to(self.device, self.dtype))

    def compute(self) -> dict[str, Tensor]:
        """Measure the model as it is now.

        Returns:
            For each numeric field of a result that metrics return (:mod:`invmm_eval.search.fields`) a tensor ``(n,)``,
            NaN where it does not exist: ``plain_share``, the share of plain samples that are copies, with the ends of
            its interval (``plain_share_low``, ``plain_share_high``), and likewise ``limit_nats``, ``ed50``, ``ed90``
            and ``rate``; ``invmm``, infinite where an image was not replicated; ``similarity``; and the values of the
            recipe's estimators. ``memorized_fraction`` and ``replicated_fraction``, scalars, are over all images; the
            first is NaN if the recipe estimates no share of plain samples, by which an image is memorized. Images are
            in the order they were added, those of process 0 first. For one image torchmetrics returns scalars.

        Raises:
            InvMMError: There are no images, or a choice does not exist.
        """
        pixels, lines = (
            dim_zero_cat(state).to("cpu", torch.uint8) if len(state) else torch.empty(0, dtype=torch.uint8)
            for state in (self.pixels, self.captions)
        )
        captions = map(json.loads, bytes(lines.tolist()).splitlines())
        watched = (Target(*each) for each in zip(pixels.view(-1, *self._shape), repeat(""), captions, strict=False))
        targets = {(target.digest, target.caption): target for target in watched}
        if not targets:
            raise InvMMError("There is no image to watch; give some to update() first.")
        sources = [Source(str(index), one.image, one.caption) for index, one in enumerate(targets.values())]
        first, processes = 0, 1
        if self._is_synced:
            first = torch.distributed.get_rank(self.process_group)
            processes = torch.distributed.get_world_size(self.process_group)
        own = sources[first::processes]
        results = list(run(replace(self._request, images=own))) if own else []
        for result in results:
            if result.error:
                _log.warning("The search of watched image %s failed: %s", result.name, result.error)
        if self._is_synced:
            results = self._gathered(results)
        results.sort(key=lambda result: int(result.name))
        found = {
            column.name: torch.tensor(
                [math.nan if (value := column.value(result)) is None else float(value) for result in results],
                device=self.device,
            )
            for column in columns("torchmetrics", results)
            if column.numeric
        }
        summary = summarize(results)
        fractions = {name: summary[name] for name in ("memorized_fraction", "replicated_fraction")}
        return found | {
            name: torch.tensor(math.nan if value is None else value, device=self.device)
            for name, value in fractions.items()
        }

    def _gathered(self, results: Sequence[Result]) -> list[Result]:
        """The results of all processes, without their tensors."""
        rows = json.dumps([result.record() for result in results]).encode()
        data = torch.frombuffer(bytearray(rows), dtype=torch.uint8).to(self.device)
        parts = (self.dist_sync_fn or gather_all_tensors)(data, group=self.process_group)
        return [Result.from_record(row) for part in parts for row in json.loads(bytes(part.tolist()))]

    def plot(
        self, val: Mapping[str, Tensor] | Sequence[Mapping[str, Tensor]] | None = None, ax: Axes | None = None
    ) -> tuple[Any, Axes]:
        """Draw each image over checkpoints: the share of plain samples that are copies, or, without it, its InvMM.

        Images of which no copy was found are hollow, at the edge.

        Args:
            val: What :meth:`compute` returned, once or at several checkpoints; None computes it now.
            ax: Where to draw; None makes a figure.

        Returns:
            The figure and its axes.
        """
        values = [val] if isinstance(val, Mapping) else [self.compute()] if val is None else val
        axes = ax or plt.subplots()[1]
        shares = any(not value.get("plain_share", torch.tensor(math.nan)).isnan().all() for value in values)
        name, none = ("plain_share", 0.0) if shares else ("invmm", math.inf)
        drawn = torch.stack([value[name].cpu().view(-1) for value in values])
        found = drawn[drawn.isfinite() & (drawn != none)].tolist()
        edge = min(found, default=1.0) / 2 if shares else 2 * max(found, default=0.5)
        places = drawn.clamp(min=edge) if shares else drawn.clamp(max=edge)
        checkpoints = torch.arange(1, len(values) + 1)
        for number, (series, heights) in enumerate(zip(drawn.T, places.T, strict=True)):
            (line,) = axes.plot(checkpoints, heights, label=f"image {number}")
            for marked, face in ((series != none, line.get_color()), (series == none, "none")):
                axes.plot(checkpoints[marked], heights[marked], "o", mfc=face, mec=line.get_color())
        axes.axhline(edge, linestyle=":", color="grey", zorder=0)
        edges = "no copy found" if shares else "not replicated"
        axes.annotate(edges, (0.01, edge), xycoords=("axes fraction", "data"), va="bottom", color="grey")
        label = "share of plain samples that are copies" if shares else "InvMM (small: memorized)"
        axes.set(yscale="log", xlabel="checkpoint", ylabel=label, xticks=checkpoints)
        axes.legend()
        return axes.figure, axes

    def __deepcopy__(self, memo: dict[int, Any]) -> "InvMM":
        """A copy, as ``clone`` and ``MetricTracker`` make it, watches the same model, not a copy of it."""
        model = self._request.model.source
        memo[id(model)] = model
        copy = type(self).__new__(type(self))
        memo[id(self)] = copy
        copy.__setstate__(deepcopy(self.__getstate__(), memo))
        return copy


InvMM.__doc__ = insert(InvMM.__doc__ or "")
