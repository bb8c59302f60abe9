from invmm_eval.recipe import Recipe
from invmm_eval.search.weight import AdaptiveWeight


def trace(recipe: Recipe, events: list[float | None]) -> list[float]:
    """lambda after each event: a step without a check (None), or a check's average loss."""
    weight = AdaptiveWeight(recipe)
    values = []
    for average in events:
        if average is None:
            weight.grow()
        else:
            weight.check(average)
        values.append(weight.value)
    return values


def test_the_weight_by_hand() -> None:
    recipe = Recipe(first_weight=2.0, delta=0.5, xi=0.25)
    assert AdaptiveWeight(recipe).value == 2.0
    events_and_values: list[tuple[float | None, float]] = [
        (None, 2.5),
        (None, 3.0),
        (8.0, 3.5),  # the first check grows, whatever the loss
        (None, 4.0),
        (7.0, 4.5),  # fell by 1
        (6.75, 5.0),  # fell by just xi, not by less
        (6.625, 2.5),  # fell by less
        (None, 3.0),
        (6.625, 1.5),  # stood still
        (9.0, 0.75),  # rose
        (8.0, 1.25),  # fell by 1 since the check before, though not below the best
        (7.875, 0.625),
    ]
    events, values = zip(*events_and_values, strict=True)
    assert trace(recipe, list(events)) == list(values)


def test_each_image_has_its_own() -> None:
    recipe = Recipe()
    first, second = AdaptiveWeight(recipe), AdaptiveWeight(recipe)
    first.check(1.0)
    first.check(1.0)
    assert second.value == recipe.first_weight
