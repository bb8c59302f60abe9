"""The times at which a noised image can be told from others.

At low noise a network restores any image, memorized or not, and the gradient of the loss in the noise says nothing. At
high noise it sees nothing of the image. In between the noised image ``alpha_t x_0`` stands out of the noise
``sigma_t n`` by a few standard deviations, and memorization decides what is restored:

    FAINTEST <= alpha_t / sigma_t * |x_0 - m| <= CLEAREST

with ``m`` the mean of the model's images. The lower end also bounds what a network that predicts the noise adds to the
estimate of x_0: an error ``e`` of the noise is one of ``sigma_t / alpha_t * e``.
"""

import torch
from torch import Generator, Tensor

from invmm_eval.device import to_device
from invmm_eval.models.schedule import Schedule

FAINTEST = 0.5
CLEAREST = 16.0
DECIDED = 6.0
"""Two images at this distance from their mean are told apart with odds of ``exp(6^2)``, about 10^15 to 1."""


def informative(schedule: Schedule, distance: float) -> Tensor:
    """The informative ones among 1,000 sampling times.

    Args:
        schedule: Of the model.
        distance: ``|x_0 - m|``, above 0.

    Returns:
        Times, shape ``(k,)``; the noisiest one alone where none is informative.
    """
    times = schedule.grid(1000)[:-1]
    signal = _signal(schedule, distance, times)
    chosen = times[(signal >= FAINTEST) & (signal <= CLEAREST)]
    return chosen if len(chosen) else times[:1]


def faintest(schedule: Schedule, distance: float) -> Tensor:
    """The noisiest informative time, a scalar; the cleanest time where there is none.

    Args:
        schedule: Of the model.
        distance: ``|x_0 - m|``, above 0.
    """
    times = schedule.grid(1000)[:-1]
    signal = _signal(schedule, distance, times)
    visible = times[signal >= FAINTEST]
    return visible[0] if len(visible) else times[-1]


def first_decided(schedule: Schedule, distance: float, steps: int) -> int:
    """The index of the first sampler step, half-way at the earliest, at which a sample has become its image or not.

    Args:
        schedule: Of the model.
        distance: ``|x_0 - m|``, above 0.
        steps: Number of sampler steps.

    Returns:
        The step from a time at which the image stands out by :data:`DECIDED`; the number of steps where there is none.
    """
    times = schedule.grid(steps)[:-1]
    decided = [index for index, signal in enumerate(_signal(schedule, distance, times).tolist()) if signal >= DECIDED]
    return max(len(times) // 2, decided[0] if decided else len(times))


def drawn(times: Tensor, n: int, generator: Generator) -> Tensor:
    """``n`` of the times, each equally likely, on their device."""
    index = torch.randint(len(times), (n,), generator=generator, device=generator.device)
    return times[to_device(index, times.device)]


def _signal(schedule: Schedule, distance: float, times: Tensor) -> Tensor:
    """How far an image stands out of the noise at each time."""
    alpha_t, sigma_t = schedule(times)
    return distance * alpha_t / sigma_t
