"""Checks: sample the model from q and compare the samples with the image."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from invmm_eval.errors import InvMMError
from invmm_eval.models.backbone import Backbone
from invmm_eval.models.condition import Context, join, rows
from invmm_eval.recipe import Recipe
from invmm_eval.search.criteria import Criterion
from invmm_eval.search.memory import MicroBatch
from invmm_eval.search.proposals import Proposal
from invmm_eval.search.result import Check
from invmm_eval.search.sampling import Rejection, sample
from invmm_eval.similarity import Similarity


@dataclass(frozen=True)
class Trial:
    """What one image contributes to a check.

    Attributes:
        noise: Initial noises, ``(K, ...)``.
        context: K contexts.
        null: K contexts of the unconditional pass.
        features: The image's features, ``(1, ...)``.
        guidance: The guidance scales to try.
        rejection: Which samples are given up on the way, in one row for all; None gives none up.
        complete: Whether all samples are drawn at all guidance scales, whatever the criterion requests.
        proposal: What the noises were drawn from; None where that is q.
    """

    noise: Tensor
    context: Context
    null: Context
    features: Tensor
    guidance: tuple[float, ...]
    rejection: Rejection | None = None
    complete: bool = False
    proposal: Proposal | None = None


def check(
    backbone: Backbone,
    similarity: Similarity,
    recipe: Recipe,
    criterion: Criterion,
    micro_batch: MicroBatch,
    trials: Sequence[Trial],
) -> list[Check]:
    """Draw the samples of several trials together, and compare them with their images.

    Args:
        backbone: The model.
        similarity: Compares samples with images.
        recipe: The sampler, its steps, and from which cosine on samples are not given up.
        criterion: Requests samples and decides.
        micro_batch: Maximum number of rows sampled together.
        trials: Of any images.

    Returns:
        One check per trial.

    Raises:
        InvMMError: The backbone returns other shapes than promised, or memory runs out for a single row.
    """
    while True:
        with micro_batch as size:
            values: list[dict[float, list[float]]] = [{scale: [] for scale in trial.guidance} for trial in trials]
            samples: list[dict[float, list[Tensor]]] = [{scale: [] for scale in trial.guidance} for trial in trials]
            while requests := _requests(trials, values, criterion):
                counts = [cut.stop - cut.start for _, _, cut in requests]
                scales = torch.tensor([scale for _, scale, _ in requests]).repeat_interleave(torch.tensor(counts))
                noise = torch.cat([trials[index].noise[cut] for index, _, cut in requests])
                images = sample(
                    backbone,
                    noise,
                    join([rows(trials[index].context, cut) for index, _, cut in requests]),
                    join([rows(trials[index].null, cut) for index, _, cut in requests]),
                    scales,
                    steps=recipe.sampler_steps,
                    micro_batch=size,
                    sampler=recipe.sampler,
                    clip=recipe.clip == "model",
                    rejection=_rejection([trials[index] for index, _, _ in requests], counts),
                )
                features = torch.split(similarity.embed(images), counts)
                compared = torch.cat(
                    [
                        similarity.compare(feature, trials[index].features)[:, 0]
                        for (index, _, _), feature in zip(requests, features, strict=True)
                    ]
                )
                pixels = (images * 255).round().to(torch.uint8)
                # Read when all is queued, so that the host waits once: the pixels are ready with the similarities.
                read = torch.split(compared.cpu(), counts), torch.split(pixels.cpu(), counts)
                for (index, scale, _), found, pixel in zip(requests, *read, strict=True):
                    # What was drawn together counts in order: an earlier scale may have decided.
                    if trials[index].complete or criterion.request(values[index]):
                        values[index][scale].extend(found.tolist())
                        samples[index][scale].append(pixel)
            return [
                Check(
                    judged_by=criterion.judged_by,
                    passed=criterion.passed(drawn),
                    similarities={scale: tuple(similarities) for scale, similarities in drawn.items() if similarities},
                    samples={scale: torch.cat(parts) for scale, parts in kept.items() if parts},
                )
                for drawn, kept in zip(values, samples, strict=True)
            ]


def features_of(similarity: Similarity, image: Tensor) -> Tensor:
    """The features of the image of a search, ``(1, C, H, W)``.

    Raises:
        InvMMError: The similarity is not defined for it.
    """
    features = similarity.embed(image)
    if not similarity.compare(features, features).isfinite().all():
        raise InvMMError(
            f"The similarity {similarity.name} is not defined for this image, as a cosine of pixels is not for one "
            "without contrast; choose another, for example ssim or sscd."
        )
    return features


def require_finite(similarity: Similarity, values: Iterable[float]) -> None:
    """Similarities that are to decide are finite.

    Raises:
        InvMMError: One is not, so that nothing can be said of the image.
    """
    for value in values:
        if not math.isfinite(value):
            raise InvMMError(
                f"The similarity {similarity.name} of a sample to the image is {value}, so the model's samples or the "
                "similarity are not finite; try float32, and check the model's scheduler and weights."
            )


def _rejection(trials: Sequence[Trial], counts: Sequence[int]) -> Rejection | None:
    """Of several trials of one model, of which each contributes a number of rows."""
    wanted = [trial.rejection for trial in trials if trial.rejection]
    if len(wanted) < len(trials):
        return None
    repeated = list(zip(wanted, counts, strict=True))
    never = torch.tensor([-math.inf])
    least = {
        step: torch.cat([one.least.get(step, never).expand(count) for one, count in repeated])
        for step in {step for one in wanted for step in one.least}
    }
    targets = [one.target.expand(count, *one.target.shape[1:]) for one, count in repeated]
    return Rejection(torch.cat(targets), wanted[0].mean, least)


def _requests(
    trials: Sequence[Trial],
    values: Sequence[Mapping[float, Sequence[float]]],
    criterion: Criterion,
) -> list[tuple[int, float, slice]]:
    """The samples to draw next, by trial, scale and rows of the trial."""
    return [
        (index, scale, slice(len(drawn[scale]), count))
        for index, (trial, drawn) in enumerate(zip(trials, values, strict=True))
        for scale, count in (
            dict.fromkeys(drawn, len(trial.noise)) if trial.complete else criterion.request(drawn)
        ).items()
        if count > len(drawn[scale])
    ]
