"""Optimizers: how a search moves the parameters of q and of the condition.

A new one is a class with the methods of :class:`Optimizer` and a line in :data:`OPTIMIZERS`.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol, Self

import torch
from torch import Tensor
from torch.optim.adam import adam

from invmm_eval.errors import InvMMError
from invmm_eval.recipe import Recipe
from invmm_eval.search.ray import Ray, aim, move

Parameters = Mapping[str, Tensor]
Start = Callable[[], Tensor]
"""Returns ``x_0 - m``, in the shape of one noise."""


class Optimizer(Protocol):
    """Moves the parameters of a search, along the gradients of the loss in :mod:`invmm_eval.search.steps`.

    One call takes a step of all searches of a batch. What a search becomes does not depend on the others.
    """

    def __init__(self, noise: Parameters, condition: Parameters, recipe: Recipe, start: Start) -> None:
        """From the parameters of q and of the condition, by name."""
        ...

    @property
    def weight(self) -> float:
        """lambda, the weight of the KL in the next step."""
        ...

    @property
    def ray(self) -> Ray | None:
        """The ray that the mean of q lies on; None where it follows none."""
        ...

    @property
    def uses_gradients(self) -> bool:
        """Whether the next step needs the gradients of the loss."""
        ...

    @classmethod
    def step(cls, optimizers: Sequence[Self], *, checked: bool) -> None:
        """Move the parameters of several searches along their gradients.

        Args:
            optimizers: One for each search, at least one.
            checked: Whether a check follows this step.
        """
        ...

    def after_check(self, average_loss: float) -> None:
        """Adapt to a check after which the search continues.

        Args:
            average_loss: The reconstruction loss, averaged over the last ``window`` steps.
        """
        ...


class AdaptiveWeight:
    """The weight lambda between sensitivity (replicate) and normality (stay close to the standard normal).

    lambda starts at ``first_weight`` and grows by ``delta`` per step. At a check it is halved instead if the average
    loss fell by less than ``xi`` since the previous check (Ma et al. 2025, section 3.3).
    """

    def __init__(self, recipe: Recipe) -> None:
        self.value = recipe.first_weight
        self._recipe = recipe
        self._average_loss = math.inf

    def grow(self) -> None:
        """Grow by delta, after a step that no check follows."""
        self.value += self._recipe.delta

    def after_check(self, average_loss: float) -> None:
        """Halve if the loss no longer falls, else grow by delta."""
        if self._average_loss - average_loss < self._recipe.xi:
            self.value /= 2
        else:
            self.grow()
        self._average_loss = average_loss


class _Moments(NamedTuple):
    """A parameter, the running means of its gradient and of that squared, and the number of steps."""

    parameter: Tensor
    mean: Tensor
    square: Tensor
    steps: Tensor

    @classmethod
    def of(cls, parameter: Tensor) -> Self:
        zeros = torch.zeros_like(parameter, requires_grad=False)
        return cls(parameter, zeros, zeros.clone(), torch.zeros((), device="cpu"))


class Adam:
    """The paper's: Adam on all parameters, in one call for all searches, with the adaptive weight of each."""

    ray: Ray | None = None
    uses_gradients = True

    def __init__(self, noise: Parameters, condition: Parameters, recipe: Recipe, start: Start) -> None:  # noqa: ARG002
        self._moments = [_Moments.of(tensor) for tensor in (*noise.values(), *condition.values())]
        self._learning_rate = recipe.learning_rate
        self._adaptive = AdaptiveWeight(recipe)

    @property
    def weight(self) -> float:
        """The adaptive weight."""
        return self._adaptive.value

    @classmethod
    @torch.no_grad()
    def step(cls, optimizers: Sequence[Self], *, checked: bool) -> None:
        """One step of Adam."""
        if moved := [one for each in optimizers for one in each._moments if one.parameter.grad is not None]:
            parameters, means, squares, steps = map(list, zip(*moved, strict=True))
            adam(
                parameters, _gradients(parameters), means, squares, [], steps,
                amsgrad=False, beta1=0.9, beta2=0.999, lr=optimizers[0]._learning_rate, weight_decay=0, eps=1e-8,
                maximize=False,
            )  # fmt: skip
        if not checked:
            for optimizer in optimizers:
                optimizer._adaptive.grow()

    def after_check(self, average_loss: float) -> None:
        """Adapt the weight."""
        self._adaptive.after_check(average_loss)


class Dose(Adam):
    """The search by dose: the best mean of the noise at a given KL, for one KL (the dose) after the other.

    Here q = N(mu, I), and the dose is K = |mu|^2 / 2, its KL in nats over all dimensions. Of all means of that length
    the one with the least reconstruction loss L is searched. There the gradient is parallel to the mean (Lagrange's
    condition), so each step sets

        m <- (1 - 1/C) m - dL/dmu,   mu <- sqrt(2 K) m / |m|,

    with m an average of gradients over about the C steps of a dose. Unlike Adam's, a step spends nothing on dimensions
    that do not matter: near the standard normal the Fisher metric is Euclidean, so the plain gradient is the direction
    that lowers the loss most for the least KL. The dose grows after each check that does not end the search. Other
    parameters of the noise keep their values; Adam moves those of the condition.

    Raises:
        InvMMError: The noise family has no ``mu``.
    """

    ray: Ray

    def __init__(self, noise: Parameters, condition: Parameters, recipe: Recipe, start: Start) -> None:
        super().__init__({}, condition, recipe, start)
        if "mu" not in noise:
            raise InvMMError("A search by dose moves the mean of the noise, but this noise family has no mu.")
        for name, tensor in noise.items():
            tensor.requires_grad_(name == "mu")
        self.ray = Ray(noise["mu"])
        self._average = torch.zeros_like(noise["mu"], requires_grad=False)
        self._memory = 1 - 1 / recipe.check_every
        self._dose = recipe.first_dose
        self._growth = recipe.growth

    @classmethod
    def step(cls, optimizers: Sequence[Self], *, checked: bool) -> None:
        """Move the means to their doses, along the averages of gradients."""
        cls._aim(optimizers)
        move([one.ray for one in optimizers], [one._dose for one in optimizers])
        super().step(optimizers, checked=checked)

    def after_check(self, average_loss: float) -> None:
        """Raise the dose, from the next step on."""
        super().after_check(average_loss)
        self._dose *= self._growth

    @classmethod
    def _aim(cls, optimizers: Sequence[Self]) -> None:
        averages = [one._average for one in optimizers]
        torch._foreach_mul_(averages, optimizers[0]._memory)
        torch._foreach_sub_(averages, _gradients(one.ray.mu for one in optimizers))
        aim([one.ray for one in optimizers], averages)


class OneShot(Dose):
    """The search by a few doses along a direction that needs no gradient.

    The direction is ``x_0 - m``, with ``m`` the mean of the model's images: at high noise the network's estimate leans
    to where the noise leans. Only a searched prompt needs a gradient: it takes one step of Adam, before the first dose.
    """

    def __init__(self, noise: Parameters, condition: Parameters, recipe: Recipe, start: Start) -> None:
        super().__init__(noise, condition, recipe, start)
        self.ray.aim(start())
        self.uses_gradients = bool(condition)

    @classmethod
    def step(cls, optimizers: Sequence[Self], *, checked: bool) -> None:
        """Move the means to their doses, and prompts along their only gradient."""
        super().step(optimizers, checked=checked)
        for optimizer in optimizers:
            optimizer.uses_gradients = False
            optimizer._moments = []

    @classmethod
    def _aim(cls, optimizers: Sequence[Self]) -> None:
        """The directions are fixed."""


def _gradients(parameters: Iterable[Tensor]) -> list[Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


OPTIMIZERS: dict[str, type[Optimizer]] = {"adam": Adam, "dose": Dose, "one-shot": OneShot}
"""By the name that a recipe gives."""
