"""The description for package indexes has pictures and links where the repository has an address."""

import re
from pathlib import Path
from typing import Any

from hatch_build import Readme
from tests.helpers.documents import ROOT

FILES = "https://example.org/invmm-eval/blob/HEAD"


def description(config: dict[str, Any]) -> str:
    metadata: dict[str, Any] = {}
    Readme(str(ROOT), config).update(metadata)
    text: str = metadata["readme"]["text"]
    return text


def targets(text: str) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", text)


def test_without_an_address_nothing_refers_to_a_file() -> None:
    text = description({})
    assert not re.search("^!", text, re.MULTILINE), "neither a picture nor what is left of one"
    assert "*Each row: " not in text, "its caption"
    assert "*Each row: " in (ROOT / "README.md").read_text("utf-8")
    assert all(target.startswith("https://") for target in targets(text))


def test_with_an_address_every_file_is_found_there() -> None:
    readme, text = (ROOT / "README.md").read_text("utf-8"), description({"files": FILES})
    assert re.sub(re.escape(f"{FILES}/") + r"|\?raw=true", "", text) == readme
    files = [target.removeprefix(FILES).lstrip("/") for target in targets(text) if target.startswith(FILES)]
    pictures = [file for file in files if file.endswith("?raw=true")]
    assert [file for file in files if Path(file.partition("?")[0]).suffix == ".png"] == pictures
    assert pictures
    for file in files:
        assert (ROOT / re.split(r"[?#]", file)[0]).is_file(), file
