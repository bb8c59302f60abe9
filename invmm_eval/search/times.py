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

from invmm_eval.models.schedule import Schedule

FAINTEST = 0.5
CLEAREST = 16.0


def informative(schedule: Schedule, distance: float) -> Tensor:
    """The informative ones among 1,000 sampling times.

    Args:
        schedule: Of the model.
        distance: ``|x_0 - m|``, above 0.

    Returns:
        Times, shape ``(k,)``; the noisiest one alone where none is informative.
    """
    times, signal = _signal(schedule, distance)
    chosen = times[(signal >= FAINTEST) & (signal <= CLEAREST)]
    return chosen if len(chosen) else times[:1]


def faintest(schedule: Schedule, distance: float) -> Tensor:
    """The noisiest informative time, a scalar; the cleanest time where there is none.

    Args:
        schedule: Of the model.
        distance: ``|x_0 - m|``, above 0.
    """
    times, signal = _signal(schedule, distance)
    visible = times[signal >= FAINTEST]
    return visible[0] if len(visible) else times[-1]


def drawn(times: Tensor, n: int, generator: Generator) -> Tensor:
    """``n`` of the times, each equally likely, on their device."""
    index = torch.randint(len(times), (n,), generator=generator, device=generator.device)
    return times[index.to(times.device)]


def _signal(schedule: Schedule, distance: float) -> tuple[Tensor, Tensor]:
    """The noisy times from the noisiest on, and how far an image stands out of the noise there."""
    times = schedule.grid(1000)[:-1]
    alpha_t, sigma_t = schedule(times)
    return times, distance * alpha_t / sigma_t
