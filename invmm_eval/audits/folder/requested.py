"""``images.json``: the images that were requested last, and when."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from invmm_eval.audits.folder.files import damaged, read_object, write_object
from invmm_eval.audits.shards import Shard
from invmm_eval.errors import InvMMError

FILE = "images.json"


@dataclass(frozen=True)
class Requested:
    """The images that were requested last.

    Attributes:
        asked: When.
        names: Their names.
        indices: The position of each in the list of images; None if ``names`` is the whole list.
        shard: The part of the list that was requested. Which of its images belong to it is known when all are read; so
            ``names`` is the whole list until then.
        whole: What identifies the list that the shard is of, in any order.
    """

    asked: datetime
    names: Sequence[str]
    indices: Sequence[int] | None = None
    shard: Shard | None = None
    whole: str | None = None

    @classmethod
    def now(cls, names: Sequence[str], shard: Shard | None = None) -> "Requested":
        """A list that is requested now, or a shard of it."""
        whole = sha256(json.dumps(sorted(names)).encode()).hexdigest() if shard else None
        return cls(datetime.now(UTC), names, shard=shard, whole=whole)

    def only(self, names: Mapping[int, str]) -> "Requested":
        """The same for these images of the list: their names, by position."""
        return replace(self, names=list(names.values()), indices=list(names))

    @property
    def images(self) -> int:
        """The number of images; an estimate for a shard that is not read."""
        return round(len(self.names) / self.shard.of) if self.shard and self.indices is None else len(self.names)

    @cached_property
    def by_index(self) -> Mapping[int, str]:
        """The names by position in the list."""
        places = range(len(self.names)) if self.indices is None else self.indices
        return dict(zip(places, self.names, strict=True))

    def save(self, folder: Path) -> None:
        """Write it to an audit's folder."""
        record: dict[str, Any] = {"asked": self.asked.isoformat(timespec="milliseconds")}
        if self.shard:
            record |= {"shard": str(self.shard), "whole": self.whole}
        if self.indices is not None:
            record["indices"] = list(self.indices)
        write_object(folder / FILE, {**record, "names": list(self.names)})

    @classmethod
    def load(cls, folder: Path) -> "Requested | None":
        """Read it from an audit's folder; None if that holds none.

        Raises:
            InvMMError: The file is damaged.
            OSError: It cannot be read.
        """
        path = folder / FILE
        if not path.exists():
            return None
        record = read_object(path)
        try:
            shard = Shard.parse(record["shard"]) if "shard" in record else None
            whole = str(record["whole"]) if shard else None
            latest = cls(datetime.fromisoformat(record["asked"]), record["names"], record.get("indices"), shard, whole)
            if latest.asked.tzinfo is None or not all(isinstance(name, str) for name in latest.names):
                raise TypeError
            if not isinstance(latest.names, list) or not all(isinstance(place, int) for place in latest.indices or ()):
                raise TypeError
            if latest.indices is not None and len(latest.indices) != len(latest.names):
                raise TypeError
        except (KeyError, TypeError, ValueError, InvMMError) as error:
            raise damaged(path) from error
        return latest
