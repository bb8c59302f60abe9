"""Shards: each picture is in one of them, whatever its name and place."""

from hashlib import sha256

import pytest

from invmm_eval.audits.shards import Shard
from invmm_eval.errors import InvMMError

DIGESTS = [sha256(str(number).encode()).hexdigest() for number in range(4000)]


def test_each_picture_is_in_one_shard_whatever_its_name_and_the_shards_are_of_one_size() -> None:
    shards = [Shard.parse(f"{number}/7") for number in range(1, 8)]
    sizes = []
    for shard in shards:
        own = [digest for digest in DIGESTS if shard.has(digest, "a name")]
        assert own == [digest for digest in DIGESTS if shard.has(digest, "another")]
        sizes.append(len(own))
    assert sum(sizes) == 4000
    assert all(abs(size - 4000 / 7) < 5 * (4000 / 7) ** 0.5 for size in sizes), "binomial, to five standard errors"


def test_an_image_that_cannot_be_read_is_in_one_shard() -> None:
    for name in ("a.png", "b.png", "c.png"):
        assert sum(Shard(number, 5).has("", name) for number in range(1, 6)) == 1


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "1/0", "-1/3", "1/3/5", "a/b", ""])
def test_what_is_no_shard_is_one_sentence(text: str) -> None:
    with pytest.raises(InvMMError, match=r"The shard is .*; give K/N with K from 1 to N, such as 3/64\.$"):
        Shard.parse(text)
