"""Models that come with invmm_eval."""
