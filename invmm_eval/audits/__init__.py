"""Many images: planned, run, kept and resumed."""
