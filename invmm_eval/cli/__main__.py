"""``python -m invmm_eval.cli`` runs the command ``invmm-eval``."""

from invmm_eval.cli import main

main()
