"""The times at which a noised image can be told from others.

At low noise a network restores any image, memorized or not, and the gradient of the loss in the noise says nothing. At
high noise it sees nothing of the image. In between the noised image ``alpha_t x_0`` stands out of the noise
``sigma_t n`` by a few standard deviations, and memorization decides what is restored:

    FAINTEST <= alpha_t / sigma_t * |x_0 - m| <= CLEAREST

with ``m`` the mean of the model's images. The lower end also bounds what a network that predicts the noise adds to the
estimate of x_0: an error ``e`` of the noise is one of ``sigma_t / alpha_t * e``.
"""

from torch import Tensor

from invmm_eval.models.schedule import Schedule

FAINTEST = 0.5
CLEAREST = 16.0
DECIDED = 6.0
"""Two images at this distance from their mean are told apart with odds of ``exp(6^2)``, about 10^15 to 1."""
FORESEEN = 4.0
"""A sample may be given up from here on: before, a rare image may hide behind others that are more frequent."""


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
    """The noisiest informative time, a scalar, or the noisiest of all where there is none.

    Args:
        schedule: Of the model.
        distance: ``|x_0 - m|``, above 0.
    """
    return informative(schedule, distance)[0]


def least_cosines(schedule: Schedule, distance: float, steps: int, cosine: float) -> dict[int, float]:
    """How much the estimate of x_0 of a sample that may become its image agrees with it on the way.

    Args:
        schedule: Of the model.
        distance: ``|x_0 - m|``, above 0.
        steps: Number of sampler steps.
        cosine: The least cosine where the image stands out by :data:`DECIDED` or more; less in proportion before.

    Returns:
        The least cosine by index of the step, for the first at which the image stands out by :data:`FORESEEN`, after
        four tenths of the steps at the earliest, and for the one after the next, without the last.
    """
    signal = _signal(schedule, distance, schedule.grid(steps)[:-1]).tolist()
    foreseen = next((index for index, value in enumerate(signal) if value >= FORESEEN), steps)
    first = max(foreseen, -(-2 * steps // 5))
    return {index: cosine * min(1.0, signal[index] / DECIDED) for index in (first, first + 2) if index < steps - 1}


def _signal(schedule: Schedule, distance: float, times: Tensor) -> Tensor:
    """How far an image stands out of the noise at each time."""
    alpha_t, sigma_t = schedule(times)
    return distance * alpha_t / sigma_t
