"""A plugin of invmm_eval: the commands ``ui`` and ``space`` for the web page."""

from collections.abc import Mapping

from invmm_eval.plugin import CommandEntry, hookimpl

__version__ = "0.2.0"
invmm_eval_api = 1


@hookimpl
def register_commands() -> Mapping[str, CommandEntry]:
    """The commands of the web page."""
    return {
        "ui": CommandEntry("invmm_ui.commands:ui", "Open a local web page to browse an audit and try a model."),
        "space": CommandEntry("invmm_ui.commands:space", "Write the web page and the metric as a Space for the Hub."),
    }
