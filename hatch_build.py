"""The description of the package for package indexes: the README without what works in a checkout only."""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class Readme(MetadataHookInterface):
    """Gives pictures and links to documents the address of the repository's files.

    An index page shows no picture that is not at an address: it removes those that are embedded. As long as
    ``[tool.hatch.metadata.hooks.custom]`` has no ``files``, pictures are left out and documents are not linked.
    """

    def update(self, metadata: dict[str, Any]) -> None:
        """Set ``readme``."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        if files := self.config.get("files"):
            text = re.sub(r"^(!\[.*\]\()((?!https?:).*)\)$", rf"\1{files}/\2?raw=true)", text, flags=re.MULTILINE)
            text = re.sub(r"(\]\()((?!https?:|#)[^)]*)\)", rf"\1{files}/\2)", text)
        else:
            text = re.sub(r"^!\[.*\]\((?!https?:).*\)\n\n(\*[^*]+\*\n\n)?", "", text, flags=re.MULTILINE)
            text = re.sub(r"\[([^\]]+)\]\((?!https?:)[^)]*\)", r"\1", text)
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
