"""Does the number mean what it says? Claims about InvMM, held against models of which the truth is known.

    data  ->  models  ->  truth  ->  audits  ->  claims  ->  docs/lab/evidence.md

Everything is made from nothing by ``python -m benchmarks.evidence`` and kept in ``runs/evidence``: a second call does
what is missing. The package is a benchmark, not a part of ``invmm_eval``.
"""
