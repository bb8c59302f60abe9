"""A command of a third party."""

from collections.abc import Mapping

from invmm_eval.plugin import CommandEntry, hookimpl


@hookimpl
def register_commands() -> Mapping[str, CommandEntry]:
    """The one command."""
    return {"count-images": CommandEntry("their_command.count:count_images", "Count the images of an audit.")}
