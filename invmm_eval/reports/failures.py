"""Why images failed: each reason once, however many images it stopped."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

Row = Mapping[str, Any]
SHOWN = 3
"""Maximum number of reasons that are listed."""


def by_reason(rows: Iterable[Row]) -> list[list[Row]]:
    """Group the rows of failed images whose errors differ only in the image's name, the largest group first."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row["status"] == "failed":
            groups.setdefault(reason(row["name"], row["error"]), []).append(row)
    return sorted(groups.values(), key=len, reverse=True)


def reason(name: str, error: str) -> str:
    """The error of an image without its name and folder."""
    return re.sub(rf"image '[^']*{re.escape(name)}'", "image", error)


def listed(groups: list[list[Row]]) -> list[str]:
    """One line per reason, with the number of images; of more than one, the first is named as an example."""
    lines = [
        f"1 failed: {first['error']}"
        if not others
        else f"{1 + len(others):,} failed, such as {first['name']}: {reason(first['name'], first['error'])}"
        for first, *others in groups[:SHOWN]
    ]
    rest = sum(map(len, groups[SHOWN:]))
    return [*lines, f"{rest:,} failed for other reasons."] if rest else lines


def in_one_sentence(groups: list[list[Row]]) -> str:
    """The sentence for an audit in which every image failed."""
    count, error = sum(map(len, groups)), groups[0][0]["error"]
    if count == 1:
        return f"The image could not be measured: {error}"
    if len(groups) == 1:
        return f"All {count:,} images failed for the same reason: {error}"
    return f"All {count:,} images failed for {len(groups):,} different reasons, most often: {error}"
