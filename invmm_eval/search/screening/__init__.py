"""The built-in detectors."""
