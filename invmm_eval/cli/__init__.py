"""The command line."""

from invmm_eval.cli.commands import main as main
