"""InvMM as a metric of Hugging Face's evaluate; this module itself imports neither evaluate nor torch."""

from pathlib import Path

MODULE = "from invmm_eval.metric.invmm import InvMM as InvMM\n"
"""A module that evaluate may load from anywhere: it imports the metric of the package that is installed."""


def metric_path() -> str:
    """The file that ``evaluate.load`` takes: ``evaluate.load(invmm_eval.metric_path())``, which never asks the Hub."""
    return str(Path(__file__).with_name("invmm.py"))
