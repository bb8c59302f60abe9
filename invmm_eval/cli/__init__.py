"""The command line."""

from invmm_eval.cli.app import main as main
