"""Limits, bounds and curves."""
