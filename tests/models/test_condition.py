import pytest
import torch
from torch import Generator, Tensor
from torch.nn.functional import gumbel_softmax

from invmm_eval.models.condition import Context, FixedPrompt, SoftPrompt, Unconditional, join, repeat, rows


def prompts(n: int, first: float = 0.0) -> Context:
    """Two tensors whose rows all differ."""
    count = first + torch.arange(n, dtype=torch.float32)
    return {"tokens": count[:, None, None].expand(n, 2, 3), "pooled": -count}


def test_an_unconditional_model_is_told_nothing_and_searches_nothing() -> None:
    condition = Unconditional()
    assert condition.parameters() == condition.rsample(4, Generator()) == condition.null(4) == {}
    assert join([condition.rsample(4, Generator()), condition.null(2)]) == {}
    assert rows(condition.null(4), slice(1, 3)) == {}


def test_contexts_are_joined_by_name_and_keep_their_rows_in_order() -> None:
    joined = join([prompts(2), prompts(1, 10), prompts(3, 20)])
    assert joined.keys() == {"tokens", "pooled"}
    assert joined["tokens"].shape == (6, 2, 3)
    assert joined["tokens"][:, 1, 2].tolist() == [0, 1, 10, 20, 21, 22]
    assert joined["pooled"].tolist() == [0, -1, -10, -20, -21, -22]
    by_name = join([prompts(1), dict(sorted(prompts(1, 5).items()))])
    assert by_name["pooled"].tolist() == [0, -5]


def test_rows_are_cut_by_slice_or_index() -> None:
    assert rows(prompts(5), slice(1, 3))["pooled"].tolist() == [-1, -2]
    assert rows(prompts(5), slice(3, 9))["tokens"][:, 0, 0].tolist() == [3, 4]
    assert rows(prompts(5), torch.tensor([4, 0, 0]))["pooled"].tolist() == [-4, 0, 0]
    assert rows(prompts(5), torch.tensor([], dtype=torch.long))["tokens"].shape == (0, 2, 3)


def soft(length: int = 2, vocabulary: int = 5, tau: float = 2.0) -> SoftPrompt:
    """Its context is the mixtures themselves, its text the likeliest tokens."""
    return SoftPrompt(
        (length, vocabulary),
        lambda weights: {"mixtures": weights},
        {"mixtures": torch.full((1, length, vocabulary), 7.0)},
        lambda logits: " ".join(map(str, logits.argmax(dim=-1).tolist())),
        device=torch.device("cpu"),
        tau=tau,
    )


def mixtures(condition: SoftPrompt, n: int, seed: int = 0) -> Tensor:
    return condition.rsample(n, Generator().manual_seed(seed))["mixtures"]


def test_a_soft_prompt_starts_even_and_hands_out_mixtures() -> None:
    condition = soft()
    assert condition.parameters().keys() == {"logits"}
    logits = condition.parameters()["logits"]
    assert logits.shape == (2, 5)
    assert not logits.any()
    assert logits.is_leaf
    assert logits.requires_grad
    drawn = mixtures(condition, 3)
    assert drawn.shape == (3, 2, 5)
    assert (drawn > 0).all()
    torch.testing.assert_close(drawn.sum(dim=-1), torch.ones(3, 2))


def test_every_draw_and_place_is_its_own_and_the_generator_repeats_them() -> None:
    before = torch.get_rng_state()
    drawn = mixtures(soft(), 4)
    assert torch.equal(torch.get_rng_state(), before), "global random numbers stay where they are"
    assert len({tuple(each.tolist()) for each in drawn.flatten(0, 1)}) == 8
    assert torch.equal(drawn, mixtures(soft(), 4))
    assert not torch.equal(drawn, mixtures(soft(), 4, seed=1))


@pytest.mark.parametrize("tau", [0.5, 2.0])
def test_mixtures_are_distributed_as_those_of_pytorch(tau: float) -> None:
    """The largest gap between the distribution functions of 20,000 draws each, for every token and the largest one."""
    logits = torch.tensor([[0.0, 1.0, -1.0, 2.0, 0.5]])
    condition = soft(length=1, tau=tau)
    with torch.no_grad():
        condition.logits.copy_(logits)
        found = mixtures(condition, 20_000)[:, 0]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            expected = gumbel_softmax(logits.expand(20_000, -1), tau=tau)
    for one, other in zip([*found.T, found.amax(dim=1)], [*expected.T, expected.amax(dim=1)], strict=True):
        both = torch.cat([one, other]).sort().values
        gap = (torch.searchsorted(one.sort().values, both) - torch.searchsorted(other.sort().values, both)).abs().max()
        assert gap / 20_000 < 0.02, "Kolmogorov-Smirnov at a level of 0.1 %"


def test_the_gradient_of_a_draw_is_that_of_its_softmax() -> None:
    condition = soft(tau=2.0)
    drawn = mixtures(condition, 1)
    (gradient,) = torch.autograd.grad(drawn[0, 0, 3], condition.logits)
    w = drawn.detach()[0, 0]
    expected = torch.zeros(2, 5)
    expected[0] = w[3] * (torch.eye(5)[3] - w) / 2
    torch.testing.assert_close(gradient, expected)


def test_a_soft_prompt_is_read_as_it_is_now_and_guided_from_its_null() -> None:
    condition = soft()
    with torch.no_grad():
        condition.logits[0, 3] = condition.logits[1, 2] = 1
    assert condition.prompt() == "3 2"
    assert (condition.null(4)["mixtures"] == 7).all()
    assert condition.null(4)["mixtures"].shape == (4, 2, 5)


def test_a_fixed_prompt_is_the_same_for_every_draw() -> None:
    condition = FixedPrompt(rows(prompts(3), slice(2, 3)), prompts(1, 9), "a cat")
    assert condition.parameters() == {}
    assert condition.prompt() == "a cat"
    assert condition.rsample(3, Generator())["pooled"].tolist() == [-2, -2, -2]
    assert condition.rsample(3, Generator())["tokens"].shape == (3, 2, 3)
    assert condition.null(2)["pooled"].tolist() == [-9, -9]


def test_a_context_is_repeated_without_copies() -> None:
    one = prompts(1, 4)
    many = repeat(one, 1000)
    assert many["tokens"].shape == (1000, 2, 3)
    assert many["pooled"].tolist() == [-4] * 1000
    assert all(many[name].data_ptr() == tensor.data_ptr() for name, tensor in one.items())
