"""Every family of models, each by a small model that is trained here on real, captioned images."""
