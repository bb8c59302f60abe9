"""``python -m invmm_eval`` runs the command ``invmm-eval``."""

from invmm_eval.cli import main

main()
