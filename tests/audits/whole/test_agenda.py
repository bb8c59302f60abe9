"""Which images are searched: by rules that any order of arrival obeys, and so that the control sample is random."""

import math
from collections.abc import Sequence
from functools import cache
from itertools import permutations

import numpy as np
import pytest

from invmm_eval.audits.whole.agenda import Agenda, End, Outcome
from invmm_eval.statistics.finite import most_in


def searched(
    agenda: Agenda, memorized: Sequence[bool | None], places: int, seed: int = 0, cost: float = 1.0
) -> list[int]:
    """Search with some places, whose searches end in random order; returns all images that were given out."""
    generator = np.random.default_rng(seed)
    given: list[int] = []
    under_way: list[int] = []
    while not agenda.finished:
        while len(under_way) < places and (image := next(agenda, None)) is not None:
            given.append(image)
            under_way.append(image)
        assert under_way, "an agenda that is not finished always has an image"
        image = under_way.pop(int(generator.integers(len(under_way))))
        agenda.record(image, Outcome(memorized[image], cost))
    assert next(agenda, None) is None
    return given


def agenda(images: int, *, control: int = 3, clean: int = 4, seed: int = 0, budget: float = math.inf) -> Agenda:
    shuffled = np.random.default_rng(seed).permutation(images).tolist()
    return Agenda(range(images), shuffled, control=control, clean=clean, budget=budget)


@pytest.mark.parametrize("places", [1, 3, 50])
@pytest.mark.parametrize("seed", range(5))
def test_both_sets_are_the_same_whatever_is_searched_together(places: int, seed: int) -> None:
    memorized = [image in (0, 1, 3, 7, 20) for image in range(40)]
    done = agenda(40, seed=seed)
    given = searched(done, memorized, places, seed)
    assert list(done.suspects) == [*range(12)], "7 interrupts a row of three, and four clean ones follow it"
    assert done.end is End.CLEAN
    order = np.random.default_rng(seed).permutation(40).tolist()
    assert done.control == [image for image in order if image > 11][:3]
    assert sorted(given) == sorted({*done.suspects, *done.control}), "no search was for nothing"


def test_a_search_that_failed_is_neither_memorized_nor_clean() -> None:
    memorized = [True, False, None, False, None, False, False, True, *[False] * 10]
    done = agenda(18, clean=4, control=0)
    searched(done, memorized, 2)
    assert len(done.suspects) == 7


def test_all_images_are_searched_if_none_are_left() -> None:
    done = agenda(5, clean=9)
    assert sorted(searched(done, [True] * 5, 2)) == [0, 1, 2, 3, 4]
    assert (done.end, done.control) == (End.ALL, [])


@pytest.mark.parametrize("places", [1, 4])
@pytest.mark.parametrize("memorized", [3, 100])
def test_a_budget_ends_the_search_and_keeps_back_the_control_sample(places: int, memorized: int) -> None:
    done = Agenda(range(100), range(99, -1, -1), control=10, clean=50, budget=500.0, spent=100.0)
    given = searched(done, [image < memorized for image in range(100)], places, cost=10.0)
    assert (done.end, len(done.suspects), len(done.control)) == (End.BUDGET, 30, 10)
    assert 100 + 10 * len(given) == 500


def test_a_budget_that_the_screening_has_spent_leaves_the_control_sample() -> None:
    done = Agenda(range(9), range(9), control=2, clean=3, budget=5.0, spent=5.0)
    assert searched(done, [True] * 9, 4) == [0, 1]
    assert list(done.suspects) == []


def test_what_was_a_suspect_stays_one_whatever_ends_the_search_now() -> None:
    memorized = [image in (0, 5) for image in range(30)]
    for known, suspects in ((3, 3), (8, 8)):
        done = Agenda(range(30), range(29, -1, -1), control=2, clean=2, budget=5.0, known=known)
        for image in range(known):
            done.record(image, Outcome(memorized[image], 1.0))
        searched(done, memorized, 3)
        assert (len(done.suspects), done.end) == (suspects, End.CLEAN)


def test_what_is_known_is_not_searched_again() -> None:
    memorized = [image in (0, 5) for image in range(30)]
    whole = agenda(30)
    given = searched(whole, memorized, 3)
    for cut in range(len(given)):
        resumed = agenda(30)
        for image in given[:cut]:
            resumed.record(image, Outcome(memorized[image], 1.0))
        rest = searched(resumed, memorized, 2, seed=cut)
        assert sorted([*given[:cut], *rest]) == sorted(given)
        assert (resumed.suspects, resumed.control) == (whole.suspects, whole.control)


def test_what_is_certain_grows_to_what_was_searched() -> None:
    memorized = [image in (0, 5) for image in range(30)]
    done = agenda(30)
    before = set(done.certain)
    given = searched(done, memorized, 3)
    assert before <= set(given) == set(done.certain)


def test_the_control_sample_is_a_simple_random_one_of_the_others() -> None:
    """Over all random orders, each set of 2 of the others is drawn equally often, whatever the suspects' outcomes."""
    memorized = [True, False, True, False, False, True]
    counts: dict[frozenset[int], int] = {}
    for shuffled in permutations(range(6)):
        done = Agenda(range(6), shuffled, control=2, clean=1)
        searched(done, memorized, 2)
        assert list(done.suspects) == [0, 1]
        sample = frozenset(done.control)
        counts[sample] = counts.get(sample, 0) + 1
    assert len(counts) == 6
    assert len(set(counts.values())) == 1


def test_the_limit_on_the_others_holds_as_often_as_it_promises() -> None:
    """Whole audits, simulated: a screen that misses some, a stopping rule that looks at outcomes, and the limit."""
    generator = np.random.default_rng(0)
    held, audits = 0, 400
    limit = cache(most_in)
    for _ in range(audits):
        memorized = generator.random(150) < 0.12
        suspicion = memorized * generator.exponential(2.0, 150) + generator.normal(size=150)
        order = np.argsort(-suspicion).tolist()
        done = Agenda(order, generator.permutation(150).tolist(), control=25, clean=5)
        searched(done, memorized.tolist(), 4)
        others = set(order) - set(done.suspects)
        hits = sum(memorized[image] for image in done.control)
        held += limit(len(others), int(hits), len(done.control)) >= sum(memorized[image] for image in others)
    assert held / audits >= 0.95 - 3 * (0.05 * 0.95 / audits) ** 0.5
