"""Noise families that come with invmm_eval."""
