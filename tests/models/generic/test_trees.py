"""Encodings of prompts as contexts and back."""

import torch
from torch import Tensor

from invmm_eval.models.condition import join, repeat
from invmm_eval.models.generic.trees import SIZES, groups, largest, layout, padded, put, take


def encoding(*lengths: int) -> list[object]:
    """Two calls: a list with an entry for each prompt, and rows that are not the first dimension beside constants."""
    rows = [torch.full((length, 2), float(length)) for length in lengths]
    return [(rows, None), (torch.stack([torch.full((5,), float(n)) for n in lengths], dim=1), torch.zeros(3, 3), "x")]


WHERE = layout(encoding(2), encoding(2, 2))


def test_rows_are_found_by_encoding_a_prompt_twice() -> None:
    assert WHERE == {(0, 0): None, (1, 0): 1}


def test_an_encoding_comes_back_with_as_many_rows_as_the_context() -> None:
    found = put(encoding(2), WHERE, repeat(take(encoding(4), WHERE), 3))
    expected = encoding(4, 4, 4)
    assert isinstance(found, list)
    assert all(map(torch.equal, found[0][0], expected[0][0]))  # type: ignore[index]
    assert torch.equal(found[1][0], expected[1][0])  # type: ignore[index]
    assert found[1][2] == "x"


def test_prompts_of_different_lengths_are_joined_and_separated_again() -> None:
    short, long = take(encoding(2), WHERE), take(encoding(4), WHERE)
    shapes = largest(short, long)
    together = join([padded(short, shapes), padded(long, shapes), padded(short, shapes)])
    found = {int(index[0]): (index.tolist(), rows) for index, rows in groups(together) if index is not None}
    assert [index for index, _ in found.values()] == [[0, 2], [1]]
    for index, rows in found.values():
        expected = short if 0 in index else long
        assert SIZES not in rows
        assert all(torch.equal(tensor[:1], expected[name]) for name, tensor in rows.items())


def test_prompts_of_equal_lengths_stay_as_they_are() -> None:
    context = take(encoding(2), WHERE)
    assert largest(context, context) is None
    assert padded(context, None) is context


def test_a_mask_that_is_left_out_keeps_every_token() -> None:
    def masked(rows: int, mask: Tensor | None) -> list[object]:
        return [(torch.zeros(rows, 4, 2), mask)]

    where = layout(masked(1, torch.ones(1, 4)), masked(2, torch.ones(2, 4)))
    assert take(masked(1, None), where)["prompt-0-1"].tolist() == [[True] * 4]
