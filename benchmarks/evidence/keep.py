"""What was found is kept, with what it was asked for: a second call does what is missing."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def kept(path: Path, asked: Mapping[str, Any], find: Callable[[], Any]) -> Any:
    """What ``path`` keeps for ``asked``, or else what ``find()`` gives, which is written there.

    Args:
        path: A JSON file.
        asked: What decides the finding, as JSON can hold it.
        find: Gives what JSON can hold.
    """
    wanted = json.loads(json.dumps(asked))
    if path.exists() and (known := json.loads(path.read_text()))["asked"] == wanted:
        return known["found"]
    found = json.loads(json.dumps(find()))
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps({"asked": wanted, "found": found}) + "\n")
    part.replace(path)
    return found
