"""Findings are kept in files with the request that they answer, so that a second call computes only what is missing."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from invmm_eval.audits.folder.files import write_atomically


def kept(path: Path, request: Mapping[str, Any], find: Callable[[], Any]) -> Any:
    """The finding in the JSON file ``path`` if it answers ``request``; else that of ``find()``, which is written."""
    wanted = json.loads(json.dumps(request))
    if not path.exists() or json.loads(path.read_text())["asked"] != wanted:
        text = json.dumps({"asked": wanted, "found": find()}) + "\n"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda part: part.write_text(text))
    return json.loads(path.read_text())["found"]
