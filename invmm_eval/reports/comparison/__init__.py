"""The comparison of two audits: its numbers, sentences, table, figure and page."""

from invmm_eval.reports.comparison.pairs import Change as Change
from invmm_eval.reports.comparison.pairs import Comparison as Comparison
from invmm_eval.reports.comparison.pairs import Pair as Pair
from invmm_eval.reports.comparison.pairs import compare as compare
