"""Any diffusers pipeline as a backbone, read where it calls its scheduler."""
