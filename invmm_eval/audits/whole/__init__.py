"""A whole set in two phases: screen all images, search the suspicious ones, and a random sample of the others."""
