import torch
from torch import Generator

from invmm_eval.condition import Context, Unconditional, join, rows


def prompts(n: int, first: float = 0.0) -> Context:
    """Two tensors whose rows tell themselves apart."""
    count = first + torch.arange(n, dtype=torch.float32)
    return {"tokens": count[:, None, None].expand(n, 2, 3), "pooled": -count}


def test_an_unconditional_model_is_told_nothing_and_searches_nothing() -> None:
    condition = Unconditional()
    assert condition.parameters() == condition.rsample(4, Generator()) == condition.null(4) == {}
    assert join([condition.rsample(4, Generator()), condition.null(2)]) == {}
    assert rows(condition.null(4), slice(1, 3)) == {}


def test_joined_contexts_keep_their_rows_in_order() -> None:
    joined = join([prompts(2), prompts(1, 10), prompts(3, 20)])
    assert joined.keys() == {"tokens", "pooled"}
    assert joined["tokens"].shape == (6, 2, 3)
    assert joined["tokens"][:, 1, 2].tolist() == [0, 1, 10, 20, 21, 22]
    assert joined["pooled"].tolist() == [0, -1, -10, -20, -21, -22]


def test_tensors_are_joined_by_name_whatever_their_order() -> None:
    joined = join([prompts(1), dict(sorted(prompts(1, 5).items()))])
    assert joined["pooled"].tolist() == [0, -5]


def test_rows_are_cut_by_slice_or_index() -> None:
    assert rows(prompts(5), slice(1, 3))["pooled"].tolist() == [-1, -2]
    assert rows(prompts(5), slice(3, 9))["tokens"][:, 0, 0].tolist() == [3, 4]
    assert rows(prompts(5), torch.tensor([4, 0, 0]))["pooled"].tolist() == [-4, 0, 0]
    assert rows(prompts(5), torch.tensor([], dtype=torch.long))["tokens"].shape == (0, 2, 3)


def test_gradients_pass_through() -> None:
    logits = torch.zeros(3, requires_grad=True)
    joined = join([{"logits": logits}, {"logits": 10 * logits}])
    (gradient,) = torch.autograd.grad(rows(joined, torch.tensor([0, 5]))["logits"].sum(), logits)
    assert gradient.tolist() == [1, 0, 10]
