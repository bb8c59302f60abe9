"""InvMM as a metric of Hugging Face's evaluate; this module itself imports neither evaluate nor torch."""

from pathlib import Path


def metric_path() -> str:
    """The file that ``evaluate.load`` takes: ``evaluate.load(invmm_eval.metric_path())``, which never asks the Hub."""
    return str(Path(__file__).with_name("invmm.py"))
