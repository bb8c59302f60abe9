"""Findings are kept in files with the request that they answer, so that a second call computes only what is missing."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def kept(path: Path, request: Mapping[str, Any], find: Callable[[], Any]) -> Any:
    """The finding in the JSON file ``path`` if it answers ``request``; else that of ``find()``, which is written."""
    wanted = json.loads(json.dumps(request))
    if path.exists() and (known := json.loads(path.read_text()))["asked"] == wanted:
        return known["found"]
    found = json.loads(json.dumps(find()))
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps({"asked": wanted, "found": found}) + "\n")
    part.replace(path)
    return found
