"""Diffusion models behind one protocol, and how to load them."""
