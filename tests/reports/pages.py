"""What tests read in a page of one file."""

import base64
import hashlib
import json
import re
from html import unescape
from typing import Any


def text_of(page: str) -> str:
    """The text outside scripts and styles, each space one blank."""
    visible = re.sub(r"<(script|style)\b.*?</\1>", "", page, flags=re.S)
    return " ".join(unescape(re.sub(r"<[^>]*>", "", visible)).split())


def data_of(page: str) -> dict[str, Any]:
    """The blocks of JSON by their names, in their order."""
    blocks = re.findall(r'<script type="application/json" id="(.*?)">(.*?)</script>', page, re.S)
    return {name: json.loads(block) for name, block in blocks}


def check_that_nothing_is_loaded(page: str, *, scripts: int = 0) -> None:
    """The policy allows the page's own style and scripts alone, all addresses are data, and pictures have words."""
    codes = [
        (kind, code) for kind in ("style", "script") for code in re.findall(rf"<{kind}>(.*?)</{kind}>", page, re.S)
    ]
    assert [kind for kind, _ in codes] == ["style", *scripts * ["script"]]
    assert len(re.findall("<script", page)) == scripts + len(data_of(page))
    digests = [(kind, base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()) for kind, code in codes]
    [policy] = re.findall(r'Content-Security-Policy" content="(.*?)"', page)
    allowed = "".join(f"; {kind}-src 'sha256-{digest}'" for kind, digest in digests)
    assert unescape(policy) == f"default-src 'none'; img-src data:{allowed}"
    assert all(place.startswith(("data:", "#")) for place in re.findall(r' (?:src|srcset|href)="(.*?)"', page))
    assert not re.findall(r"<img(?![^>]* alt=\"[^\"])", page)
    assert not re.findall(r"</?[bi]>", page), "of names"
