"""Parts of a set that are audited apart from each other."""

import re
from dataclasses import dataclass
from hashlib import sha256

from invmm_eval.errors import InvMMError

_TEXT = re.compile(r"(\d{1,6})/(\d{1,6})")


@dataclass(frozen=True)
class Shard:
    """One of ``of`` parts of a set.

    The digest of its pixels puts a picture into a part, so that the parts do not depend on the order of the images, nor
    on their names; equal pictures are in the same part. An image that cannot be read is placed by its name.

    Attributes:
        number: Which part, from 1.
        of: Number of parts.
    """

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Read K/N.

        Raises:
            InvMMError: It is something else, or K is not between 1 and N.
        """
        match = _TEXT.fullmatch(text)
        shard = cls(*map(int, match.groups())) if match else cls(0, 0)
        if not 1 <= shard.number <= shard.of:
            raise InvMMError(f"The shard is {text!r}; give K/N with K from 1 to N, such as 3/64.")
        return shard

    def has(self, digest: str, name: str) -> bool:
        """Whether an image is in this part.

        Args:
            digest: SHA-256 of its pixels, in hex; empty if it cannot be read.
            name: Its name.
        """
        return int(digest or sha256(name.encode()).hexdigest(), 16) % self.of == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"
